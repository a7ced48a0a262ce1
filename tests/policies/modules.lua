-- What the modules of `kumo` give is used as what it is: digests, times, regular expressions, maps.
local kumo = require 'kumo'

local NETWORKS = kumo.cidr.make_map { ['127.0.0.0/8'] = 'here', ['192.0.2.0/24'] = 'there' }
local RATES = kumo.domain_map.new { ['*.example.com'] = 'slow' }
local PLUS = kumo.regex.compile [[\+.*$]]
local hosts = kumo.string.split(os.getenv 'NO_SUCH_VARIABLE' or '127.0.0.1,192.0.2.1', ',')

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = hosts }
end)

kumo.on('smtp_server_rcpt_to', function(recipient, conn_meta)
  local user = PLUS:replace(recipient.user, '')
  conn_meta:set_meta('x_user', kumo.digest.sha256(user).hex)
  conn_meta:set_meta('x_rate', RATES[recipient.domain])
end)

kumo.on('smtp_server_message_received', function(msg, conn_meta)
  local from = msg:from_header()
  if from and from.domain == 'x.example' then
    msg:append_header('X-Seen', kumo.time.now():format '%Y')
  end
  msg:set_meta('x_place', NETWORKS[conn_meta:get_meta 'received_from'])
  local id = kumo.uuid.new_v4()
  msg:set_meta('x_id', id.simple .. tostring(id))
end)
