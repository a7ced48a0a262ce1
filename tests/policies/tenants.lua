-- Several senders behind one gateway: a table of them, helpers that pass messages on, metadata, a memoized lookup.
local kumo = require 'kumo'
local utils = require 'policy-extras.policy_utils'

local TENANTS = {
  ['send.example.com'] = { name = 'one', networks = { '127.0.0.0/8' } },
  ['mail.example.org'] = { name = 'two', networks = { '192.0.2.0/24' } },
}

local handlers = {}

function handlers.mark(msg, tenant)
  msg:set_meta('tenant', tenant and tenant.name or 'unknown')
  msg:prepend_header('X-Tenant', msg:get_meta 'tenant')
end

function handlers.campaign(msg)
  msg:import_x_headers { 'x-campaign' }
  local campaign = msg:get_meta 'x_campaign'
  if campaign then msg:set_meta('campaign', campaign) end
end

local is_bounce_domain = kumo.memoize(function(domain)
  return utils.starts_with(domain, 'bounce.')
end, { name = 'bounces', ttl = '5 minutes', capacity = 100 })

kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:2525',
    relay_hosts = { '192.0.2.1' },
    meta = { x_gateway = 'one' },
    peer = { ['127.0.0.0/8'] = { max_message_size = 1000000 } },
  }
  kumo.configure_local_logs { log_dir = 'var/log', min_free_space = 0, filter_event = 'is_logged' }
end)

kumo.on('is_logged', function(msg) return msg:sender().email ~= '' end)

kumo.on('smtp_server_ehlo', function(domain, conn_meta, extensions)
  conn_meta:set_meta('x_ehlo', domain:lower())
end)

kumo.on('smtp_server_mail_from', function(sender, conn_meta)
  if sender.domain == 'spam.example' then kumo.reject(550, '5.7.1 not from there') end
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if is_bounce_domain(domain) then return kumo.make_listener_domain { log_oob = 'LogThenDrop' } end
  local tenant = TENANTS[domain]
  if tenant then return kumo.make_listener_domain { relay_from = tenant.networks } end
end)

kumo.on('smtp_server_message_received', function(msg, conn_meta)
  handlers.mark(msg, TENANTS[msg:sender().domain])
  for _, name in ipairs { 'campaign' } do
    handlers[name](msg)
  end
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config { protocol = { maildir_path = 'var/maildir' } }
end)
