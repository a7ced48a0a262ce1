-- `require 'policy-extras.listener_domains'`: grants by domain out of files and tables. What they may say is
-- domain_table.py's business.

local _, host = ...
local listener_domains = {}
local configured = false

-- The handler for get_listener_domain. sources: names of files, TOML where they end so and JSON otherwise, and tables;
-- a later one stands over an earlier one.
function listener_domains:setup(sources)
  if configured then error('listener_domains module has already been configured', 2) end
  configured = true
  local domains = host.load(sources)
  local function get_listener_domain(domain, listener, conn_meta)
    return host.find(domains, domain, listener, conn_meta)
  end
  host.stands_before(get_listener_domain, domains)
  return get_listener_domain
end

return listener_domains
