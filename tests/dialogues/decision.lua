-- Every way to be granted something.
local DOMAINS = {
  ['relay.example'] = { relay_to = true },
  ['partner.example'] = { relay_from = { '127.10.0.0/16' } },
  ['oob.example'] = { log_oob = true },
  ['arf.example'] = { log_arf = true },
  ['drop.example'] = { log_oob = 'LogThenDrop', log_arf = 'LogThenDrop' },
  ['pass.example'] = { log_oob = 'LogThenRelay' },
  ['nothing.example'] = {},
}

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.9.0.0/16' } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  local granted = DOMAINS[domain]
  return granted and kumo.make_listener_domain(granted)
end)

kumo.on('smtp_server_message_received', function(msg, conn_meta)
  if msg:get_first_named_header_value 'X-Queue' then
    msg:set_meta('queue', msg:get_first_named_header_value 'X-Queue')
  end
end)

kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
