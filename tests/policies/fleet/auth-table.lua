local kumo = require 'kumo'

local CUSTOMERS = {
  ['acme'] = { password = 'tomato', pool = 'acme-pool', domains = { 'acme.example' } },
  ['globex'] = { password = 'cactus', pool = 'globex-pool', domains = { 'globex.example', 'globex.test' } },
}

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:587', relay_hosts = {}, hostname = 'submission.example.com' }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
end)

kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn_meta)
  local customer = CUSTOMERS[authc]
  return customer ~= nil and customer.password == password
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if conn_meta:get_meta 'authz_id' then
    return kumo.make_listener_domain { relay_to = true, log_oob = true }
  end
end)

kumo.on('smtp_server_mail_from', function(sender, conn_meta)
  local user = conn_meta:get_meta 'authz_id'
  if not user then kumo.reject(530, '5.7.0 authentication required') end
  for _, domain in ipairs(CUSTOMERS[user].domains) do
    if sender.domain == domain then return end
  end
  kumo.reject(550, '5.7.1 ' .. sender.domain .. ' is not yours')
end)

kumo.on('smtp_server_message_received', function(msg, conn_meta)
  msg:set_meta('tenant', conn_meta:get_meta 'authz_id')
end)

kumo.on('get_queue_config', function(domain, tenant)
  return kumo.make_queue_config { egress_pool = CUSTOMERS[tenant].pool }
end)
kumo.on('get_egress_pool', function(name)
  return kumo.make_egress_pool { name = name, entries = { { name = name .. '-1', weight = 2 }, { name = name .. '-2' } } }
end)
kumo.on('get_egress_source', function(name)
  return kumo.make_egress_source { name = name, source_address = '10.0.0.1', ehlo_domain = name .. '.example.com' }
end)
