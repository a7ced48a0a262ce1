local kumo = require 'kumo'

kumo.on('init', function()
  kumo.start_http_listener { listen = '127.0.0.1:8000', trusted_hosts = { '127.0.0.1', '10.0.0.0/8' } }
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' }, max_message_size = 1048576 }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.set_httpinject_threads(8)
  kumo.set_httpinject_recipient_rate_limit '100/s'
  kumo.aaa.set_fall_back_to_acl_map(true)
end)

kumo.on('http_server_validate_auth_basic', function(user, password)
  local known = { ['daniel'] = 'tiger' }
  return known[user] == password
end)
kumo.on('http_server_validate_auth_bearer', function(token) return token == 'x' end)
kumo.on('get_acl_definition', function(resource)
  return kumo.aaa.make_access_control_list { { criteria = { Any = true }, privilege = 'GET', access = 'Allow' } }
end)
kumo.on('http_message_generated', function(msg)
  msg:import_scheduling_header 'X-Schedule'
  if msg:sender().domain == '' then kumo.reject(500, 'no sender') end
end)
kumo.on('daily.report', function()
  kumo.api.inject.inject_v1 {
    envelope_sender = 'reports@example.com', content = 'Subject: daily\n\nfine\n',
    recipients = { { email = 'admin@example.com' } },
  }
end)
