-- Relays everything to a fleet of one member.
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.9.0.0/16' } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0, meta = { 'received_from' } }
end)

kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } } }
end)

kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { max_deliveries_per_connection = 1 }
end)
