kumo.on('init', function()
  kumo.start_esmtp_listener { require_proxy_protocol = false, deferred_queue = true }
  kumo.start_http_listener { use_tls = true }
  kumo.configure_log_hook { name = 'hook' }
end)
kumo.on('smtp_server_message_deferred_inject', function() end)
kumo.on('log_disposition_hook', function() end)
kumo.on('get_queue_config', function()
  return kumo.make_queue_config {
    max_message_rate = '100/s',
    protocol = { custom_lua = { constructor = 'make.it' } },
  }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { max_connection_rate = '10/min', enable_dane = true, skip_hosts = { 'x' } }
end)
kumo.on('smtp_server_message_received', function(msg)
  local list = kumo.kafka.build_producer {}
end)
