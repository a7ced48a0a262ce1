local kumo = require 'kumo'
local utils = require 'policy-extras.policy_utils'

local plan = utils.load_json_or_toml_file '/opt/kumomta/etc/policy/warmup.json'
local schedule = kumo.serde.toml_parse [[
steps = [50, 100, 500, 1000, 5000]
]]

local function limit_of(source)
  local age = os.difftime(os.time(), os.time { year = 2024, month = 1, day = source.day }) // 86400
  return schedule.steps[math.min(#schedule.steps, math.max(1, math.tointeger(age) or 1))]
end

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  assert(limit_of(plan.sources[1]) == 5000)
end)

kumo.on('smtp_server_message_received', function(msg)
  if utils.table_contains(plan.tenants, msg:get_first_named_header_value 'X-Tenant') then
    msg:set_meta('tenant', 'warming')
  end
end)
kumo.on('get_queue_config', function(domain, tenant)
  return kumo.make_queue_config { egress_pool = tenant or 'old', max_message_rate = tenant and '50/d' or nil }
end)
kumo.on('get_egress_pool', function(name)
  local entries = { { name = 'old-1', weight = 90 } }
  for _, source in ipairs(plan.sources) do table.insert(entries, { name = source.name, weight = limit_of(source) }) end
  return kumo.make_egress_pool { name = name, entries = entries }
end)
kumo.on('get_egress_source', function(name)
  return kumo.make_egress_source { name = name, ha_proxy_server = '10.0.0.9:5000', ha_proxy_source_address = '192.0.2.9' }
end)
kumo.on('get_egress_path_config', function(routing_domain, source, site)
  local path = kumo.make_egress_path { max_message_rate = '100/hr', enable_mta_sts = false }
  if source:find 'new' then path.max_message_rate = '10/hr' end
  return path
end)
kumo.on('smtp_client_rewrite_delivery_status', function(response, domain)
  if response:find 'try again tomorrow' then return 451 end
end)
