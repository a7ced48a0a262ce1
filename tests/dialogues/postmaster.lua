-- Mail for the gateway's own name is taken, and nobody else's.
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'GW.example', relay_hosts = {} }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)

kumo.on('get_listener_domain', function(domain)
  if domain == 'gw.example' then
    return kumo.make_listener_domain { relay_to = true }
  end
end)

kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
