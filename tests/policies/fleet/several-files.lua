package.path = '/opt/kumomta/etc/policy/?.lua;' .. package.path
local kumo = require 'kumo'
local tenants = require 'tenants'
local limits = kumo.serde.yaml_load '/opt/kumomta/etc/policy/limits.yaml'

kumo.on('pre_init', function()
  kumo.configure_redis_throttles { node = 'redis://127.0.0.1/' }
end)
kumo.on('init', function()
  for _, listen in ipairs(limits.listen) do
    kumo.start_esmtp_listener {
      listen = listen, relay_hosts = limits.hosts, max_recipients_per_message = limits.recipients,
    }
  end
  kumo.configure_local_logs {
    log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0,
    per_record = { Any = { enable = true }, Rejection = { enable = false } },
  }
end)
kumo.on('smtp_server_ehlo', function(domain)
  if domain == 'spam.example' then kumo.reject(550, '5.7.1 not you') end
end)
kumo.on('smtp_server_rcpt_to', function(recipient)
  if tenants.is_blocked(recipient.domain) then kumo.reject(550, '5.1.2 ' .. recipient.domain .. ' is blocked') end
end)
kumo.on('smtp_server_message_received', function(msg)
  msg:set_meta('tenant', tenants.of(msg:sender().domain))
  msg:set_scheduling { first_attempt = '2030-01-01T00:00:00Z' }
end)
kumo.on('get_queue_config', tenants.queue_config)
