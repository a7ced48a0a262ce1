-- All of it in TOML files; this file only puts the helpers together.
local kumo = require 'kumo'
package.path = '/opt/kumomta/etc/?.lua;' .. package.path

local shaping = require 'policy-extras.shaping'
local shaper = shaping:setup_with_automation {
  publish = { 'http://127.0.0.1:8008' },
  subscribe = { 'http://127.0.0.1:8008' },
  extra_files = { '/opt/kumomta/etc/policy/shaping.toml' },
}
local listener_domains = require 'policy-extras.listener_domains'
local sources = require 'policy-extras.sources'
local dkim_sign = require 'policy-extras.dkim_sign'
local queue_module = require 'policy-extras.queue'
local log_hooks = require 'policy-extras.log_hooks'

sources:setup { '/opt/kumomta/etc/policy/sources.toml' }
local queue_helper = queue_module:setup { '/opt/kumomta/etc/policy/queues.toml' }
local dkim_signer = dkim_sign:setup { '/opt/kumomta/etc/policy/dkim_data.toml' }

log_hooks:new_json {
  name = 'webhook',
  url = 'http://10.0.0.1:4242/log',
  log_parameters = { headers = { 'Subject', 'X-Customer-ID' } },
}

kumo.on('init', function()
  shaper.setup_publish()
  kumo.configure_accounting_db_path '/var/spool/kumomta/accounting.db'
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.define_spool { name = 'data', path = '/var/spool/kumomta/data' }
  for _, port in ipairs { 25, 587 } do
    kumo.start_esmtp_listener { listen = '0.0.0.0:' .. tostring(port), relay_hosts = { '10.0.0.0/8' } }
  end
end)

kumo.on('get_listener_domain', listener_domains:setup { '/opt/kumomta/etc/policy/listener_domains.toml' })
kumo.on('get_egress_path_config', shaper.get_egress_path_config)

kumo.on('smtp_server_message_received', function(msg)
  queue_helper:apply(msg)
  dkim_signer(msg)
end)
kumo.on('http_message_generated', function(msg)
  queue_helper:apply(msg)
  dkim_signer(msg)
end)
