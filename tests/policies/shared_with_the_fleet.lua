-- One file for the gateway and for KumoMTA: each does what it can.
local kumo = require 'kumo'

local function prepare()
  if kumo.set_handler_limits then kumo.set_handler_limits { wait = '5s' } end
  if not kumo.start_esmtp_listener then kumo.nothing_of_this_is_reached() end
end

-- Nobody calls it: what is wrong in it is worth a warning, no more.
local function old_helper(domain)
  kumo.make_listner_domain { relay_too = domain }
end

kumo.on('http_server_validate_auth_basic', function(user, password) return false end)

kumo.on('init', function()
  prepare()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '127.0.0.1' } }
end)
