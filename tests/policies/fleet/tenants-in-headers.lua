local kumo = require 'kumo'
local TENANTS = { alpha = { pool = 'a', rate = '1000/hr' }, beta = { pool = 'b', rate = '20000/hr' } }

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs {
    log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0, meta = { 'tenant', 'campaign' },
  }
end)

kumo.on('smtp_server_message_received', function(msg)
  local tenant = msg:get_first_named_header_value 'X-Tenant'
  if not TENANTS[tenant] then kumo.reject(550, '5.7.1 no such tenant') end
  msg:set_meta('tenant', tenant)
  msg:import_x_headers { 'x-campaign' }
  if not kumo.gateway then
    msg:remove_x_headers { 'x-tenant', 'x-campaign' }
  end
end)

kumo.on('get_queue_config', function(domain, tenant, campaign)
  local found = TENANTS[tenant]
  return kumo.make_queue_config { egress_pool = found.pool, max_message_rate = found.rate }
end)
kumo.on('get_egress_pool', function(name)
  local entries = {}
  for number = 1, 4 do entries[number] = { name = ('%s-%d'):format(name, number) } end
  return kumo.make_egress_pool { name = name, entries = entries }
end)
kumo.on('throttle_insert_ready_queue', function(msg)
  local throttle = kumo.make_throttle('tenant-' .. msg:get_meta 'tenant', '100/s')
  throttle:delay_message_if_throttled(msg)
end)
