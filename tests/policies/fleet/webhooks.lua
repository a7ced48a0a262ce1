local kumo = require 'kumo'

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.configure_log_hook { name = 'webhook', headers = { 'Subject', 'X-Customer-ID' }, meta = { 'tenant' } }
end)

-- Records about the hook's own messages would never end.
kumo.on('should_enqueue_log_record', function(msg, hook_name)
  local record = msg:get_meta 'log_record'
  if record.queue ~= 'webhook' and hook_name == 'webhook' then
    msg:set_meta('queue', 'webhook')
    return true
  end
  return false
end)

kumo.on('get_queue_config', function(domain)
  if domain == 'webhook' then
    return kumo.make_queue_config {
      protocol = { custom_lua = { constructor = 'make.webhook' } },
      retry_interval = '1 minute',
    }
  end
  return kumo.make_queue_config {}
end)

kumo.on('make.webhook', function(domain, tenant, campaign)
  local connection = {}
  local client = kumo.http.build_client {}
  function connection:send(message)
    local response = client:post('http://127.0.0.1:4242/log')
      :header('Content-Type', 'application/json')
      :body(message:get_data())
      :send()
    if response:status_is_success() then return 'ok ' .. response:status_code() end
    kumo.reject(500, response:text())
  end
  function connection:close() client:close() end
  return connection
end)
