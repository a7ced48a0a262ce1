local kumo = require 'kumo'
local client

local function nats()
  client = client or kumo.nats.connect { servers = { 'nats.example.com:4222' } }
  return client
end

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
end)
kumo.on('smtp_server_message_received', function(msg)
  local connection = nats()
  local ok, problem = pcall(function()
    connection:publish { subject = 'inbound', payload = kumo.serde.json_encode { raw = msg:get_data() } }
  end)
  if not ok then kumo.reject(451, '4.3.0 ' .. tostring(problem)) end
  msg:set_meta('queue', 'null')
end)
