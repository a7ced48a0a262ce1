-- Grants by domain out of a file beside the policy, through the helper and without it.
local kumo = require 'kumo'
local listener_domains = require 'policy-extras.listener_domains'

local known = kumo.toml_load 'domains.toml'
local lookup = listener_domains:setup {
  { ['*.example.com'] = { relay_to = true }, ['www.example.com'] = { relay_to = false } },
}

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '192.0.2.1' } }
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  local found = known[domain]
  if found then
    return kumo.make_listener_domain { relay_to = found.relay_to or false, log_oob = found.log_oob or false }
  end
  return lookup(domain, listener, conn_meta)
end)
