local kumo = require 'kumo'
local mail_auth = require 'policy-extras.mail_auth'
require('policy-extras.log_hooks'):new_json { name = 'hook', url = 'http://127.0.0.1:1/' }
local BLOCKED = kumo.cidr.make_map { ['192.0.2.0/24'] = 'testing', ['198.51.100.7'] = 'once too often' }
local CATCH_ALL = kumo.domain_map.new { ['*.in.example'] = 'catch', ['in.example'] = 'catch' }

kumo.on('init', function()
  kumo.dns.define_resolver('nothing', { Test = { zones = {} } })
  kumo.start_esmtp_listener {
    listen = '0.0.0.0:25', hostname = 'mx.example.com', relay_hosts = {}, max_messages_per_connection = 100,
    peer = { ['127.0.0.0/8'] = { relay_hosts = { '127.0.0.0/8' }, banner = 'local' } },
    trace_headers = { supplemental_header = false },
    batch_handling = 'BatchByDomain',
    meta = { where = 'edge' },
  }
  kumo.configure_local_logs {
    log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0, meta = { 'where' }, headers = { 'Subject' },
  }
end)
kumo.on('smtp_server_connection_accepted', function(conn_meta)
  local reason = BLOCKED[conn_meta:get_meta 'received_from']
  if reason then kumo.disconnect(550, '5.7.1 ' .. reason) end
end)
kumo.on('get_listener_domain', function(domain)
  if CATCH_ALL[domain] then return kumo.make_listener_domain { relay_to = true, log_oob = true, log_arf = true } end
end)
kumo.on('smtp_server_mail_from', function(sender)
  if kumo.string.ends_with(sender.domain, '.invalid') then kumo.reject(553, '5.1.8 ' .. sender.domain) end
end)
kumo.on('smtp_server_message_received', function(msg, conn_meta)
  local result = mail_auth.check(msg, { resolver = 'nothing' })
  msg:append_header('X-DMARC', result.dmarc.result)
  msg:append_header('X-Where', conn_meta:get_meta 'where' or 'nowhere')
  if #msg:get_all_named_header_values 'Received' > 50 then kumo.reject(554, '5.4.6 a loop') end
end)
