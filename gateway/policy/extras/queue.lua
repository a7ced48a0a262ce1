-- `require 'policy-extras.queue'` at the gateway of a fleet: what the helper does to a message that comes in. How mail is
-- queued is the fleet's. Header fields stay, even where the helper is told to remove them: the fleet's looks at them, too.

local _, host = ...
local kumo = require 'kumo'
local utils = require 'policy-extras.policy_utils'

local queue = setmetatable({}, { __index = function() return host.inert end })
local configured = false

-- Everything that files and tables say; what a later one says stands over what an earlier one does.
local function merged(sources)
  local found = { queue = {}, tenant = {} }
  for _, source in ipairs(sources) do
    local read, data = pcall(utils.load_json_or_toml_file, source)
    if read then
      for name, value in pairs(data) do
        name = ({ queues = 'queue', tenants = 'tenant' })[name] or name
        utils.recursive_merge_into({ [name] = value }, found)
      end
    elseif not tostring(data):find 'No such file' then
      error(data, 0)
    else
      kumo.log_warn(('policy-extras.queue: %s; so messages get nothing of it'):format(data))
    end
  end
  found.queue_of = kumo.domain_map.new(found.queue)
  return found
end

-- What is under a name in a table, or in the table's table of such.
local function inside(data, list, name)
  if type(data) ~= 'table' or name == nil then return nil end
  return type(data[list]) == 'table' and data[list][name] or data[name]
end

-- The most specific routing_domain of all that is said about a message.
local function routing_domain(data, domain, tenant, campaign)
  local of_domain = data.queue_of[domain]
  local of_tenant = inside(of_domain, 'tenants', tenant)
  local of_campaign = inside(of_tenant, 'campaigns', campaign)
  for _, one in ipairs { of_campaign or {}, of_tenant or {}, data.tenant[tenant or ''] or {}, of_domain or {} } do
    if type(one) == 'table' and one.routing_domain then return one.routing_domain end
  end
  return (data.queue.default or {}).routing_domain
end

local function refuse(text, ...)
  kumo.reject(500, text:format(...))
end

-- Whether a message may be sent as a tenant's. said_by: where the tenant is named.
local function check(data, msg, tenant, said_by)
  local known = data.tenant[tenant]
  if not known then refuse("tenant '%s' specified by %s is not defined in your queue config", tenant, said_by) end
  if not known.require_authz then return end
  local user = msg:get_meta 'authz_id'
  if not user then refuse("tenant '%s' requires SMTP AUTH", tenant) end
  if not utils.table_contains(known.require_authz, user) then
    refuse("authz_id '%s' is not authorized to send as tenant '%s'", user, tenant)
  end
end

local function apply(data, msg)
  local campaign = data.campaign_header and msg:get_first_named_header_value(data.campaign_header)
  if campaign then msg:set_meta('campaign', campaign) end
  local tenant = data.tenant_header and msg:get_first_named_header_value(data.tenant_header)
  local said_by = ("'%s' header"):format(data.tenant_header)
  if not tenant then
    tenant, said_by = data.default_tenant, 'default_tenant option'
  end
  if tenant then
    check(data, msg, tenant, said_by)
    msg:set_meta('tenant', tenant)
  end
  local first = msg:recipient_list()[1]
  if first then
    local way = routing_domain(data, first.domain, msg:get_meta 'tenant', msg:get_meta 'campaign')
    if way then msg:set_meta('routing_domain', way) end
  end
end

-- The helper, whose `apply` is called with each message. file_names: of JSON and TOML files, and tables.
function queue:setup(file_names)
  return self:setup_with_options { file_names = file_names }
end

function queue:setup_with_options(options)
  if configured then error('queues module has already been configured', 2) end
  configured = true
  local data = merged(options.file_names)
  local helper = setmetatable({}, { __index = function() return host.inert end })
  function helper:apply(msg) apply(data, msg) end
  return helper
end

return queue
