-- `require 'policy-extras.docker_utils'`: the network of the container that the policy runs in, and the addresses of its
-- neighbours, as the system's resolver knows them.

local kumo = require 'kumo'

local docker_utils = {}

-- The IPv4 addresses of a host; of a service with `endpoint_mode: dnsrr`, those of all its containers.
docker_utils.resolve_docker_name = kumo.memoize(function(name)
  local addresses = {}
  if not name:match '^[%w._-]+$' or name:match '^%-' then return addresses end -- it goes into a command
  local program <close> = io.popen('getent ahostsv4 ' .. name)
  for line in program:lines() do
    addresses[#addresses + 1] = line:match '^(%d+%.%d+%.%d+%.%d+)%s+STREAM'
  end
  return addresses
end, { name = 'resolve_docker_name', ttl = '1 minute', capacity = 1024 })

local function own_name()
  local name = os.getenv 'HOSTNAME'
  if name then return name end
  local program <close> = io.popen 'uname -n'
  return program:read()
end

-- The /24 that this host's first address is in; nil, with a warning, where it has none.
docker_utils.resolve_docker_network = kumo.memoize(function()
  local name = own_name()
  local network = (docker_utils.resolve_docker_name(name)[1] or ''):match '^(.*)%.%d+$'
  if network then return network .. '.0/24' end
  kumo.log_warn(('policy-extras.docker_utils: %s has no IPv4 address, so there is no network'):format(name))
end, { name = 'resolve_docker_network', ttl = '1 hour', capacity = 1 })

function docker_utils.resolve_tsa_endpoints()
  local endpoints = {}
  for _, address in ipairs(docker_utils.resolve_docker_name 'tsa') do
    endpoints[#endpoints + 1] = ('http://%s:8008'):format(address)
  end
  return endpoints
end

return docker_utils
