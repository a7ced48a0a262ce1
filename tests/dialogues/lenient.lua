-- Takes lone CRs and LFs as they are.
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = LISTEN,
    hostname = 'gw.example',
    relay_hosts = { '127.9.0.0/16' },
    invalid_line_endings = 'Allow',
    trace_headers = { received_header = false, supplemental_header = false },
  }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)

kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { smtp = { mx_list = UPSTREAMS } } }
end)

kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { max_deliveries_per_connection = 1 }
end)
