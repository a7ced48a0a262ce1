-- AUTH by a table of users; those who logged in may relay.
local kumo = require 'kumo'

local PASSWORDS = { ann = 'tiger' }

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '192.0.2.1' } }
end)

kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn_meta)
  return PASSWORDS[authc] == password
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if conn_meta:get_meta 'authz_id' == 'ann' then return kumo.make_listener_domain { relay_to = true } end
end)

kumo.on('smtp_server_rewrite_response', function(status, response, command, conn_meta)
  if status == 550 then return status, response .. ' (' .. (conn_meta:get_meta 'ehlo_domain' or '?') .. ')' end
end)
