-- Relays for our own clients and to in.example; small limits.
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN,
    hostname = 'gw.example',
    banner = 'ready',
    relay_hosts = { '127.9.0.0/16' },
    max_message_size = 1000,
    max_recipients_per_message = 3,
    max_messages_per_connection = 5,
  }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0, headers = { 'Subject' } }
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if domain == 'in.example' then
    return kumo.make_listener_domain { relay_to = true }
  end
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain ~= 'nowhere.example' then
    return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
  end
end)
