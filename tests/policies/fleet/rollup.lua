local kumo = require 'kumo'
local rollup = require 'policy-extras.rollup'
local docker_utils = require 'policy-extras.docker_utils'
local MAPPING = { { mx_suffix = '.mail.protection.outlook.com.', routing_domain = 'outlook.mx_rollup' } }

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0:25', relay_hosts = { '127.0.0.0/8', docker_utils.resolve_docker_network() } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.set_memory_soft_limit(2 ^ 30)
  kumo.set_config_monitor_globs { '/opt/kumomta/etc/**/*.{lua,json,toml,yaml}' }
end)

kumo.on('smtp_server_message_received', function(msg)
  rollup.reroute_using_ip_rollup(msg, MAPPING)
  rollup.reroute_based_on_mx_host_suffix(msg, MAPPING)
end)
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  local params = { max_age = '5 minutes' }
  rollup.apply_ip_rollup_to_queue_config(domain, routing_domain, params)
  return kumo.make_queue_config(params)
end)
kumo.on('requeue_message', function(msg, response)
  if msg:num_attempts() > 3 then kumo.xfer.xfer_in_requeue(msg, 'http://backup.example.com:8000') end
end)
kumo.on('xfer_message_received', function(msg) msg:set_meta('queue', 'slow') end)
