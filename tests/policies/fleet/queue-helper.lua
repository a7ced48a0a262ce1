local kumo = require 'kumo'
local queue_helper = require('policy-extras.queue'):setup { '/opt/kumomta/etc/policy/queues.toml' }
local log_hooks = require 'policy-extras.log_hooks'

log_hooks:new_disposition_hook {
  name = 'ndr',
  hook = function(msg, record)
    kumo.inject_message(kumo.generate_rfc3464_message({}, msg, record))
  end,
}

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.define_egress_source { name = 'ip-1', source_address = '10.0.0.1' }
  kumo.define_egress_pool { name = 'pool-1', entries = { { name = 'ip-1' } } }
end)
kumo.on('smtp_server_message_received', function(msg)
  queue_helper:apply(msg)
  local user = kumo.encode.base64_encode(msg:recipient().email .. msg:get_meta 'tenant')
  msg:append_header('X-Queue', msg:queue_name() .. ' ' .. user)
end)
