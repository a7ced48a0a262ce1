local gateway = require 'gateway'
local FLEET = gateway.fleet {
  zonee = 'fra',
  members = {
    { host = 'mta1:2525', wieght = 2, path = { enable_tls = 'Maybe', wait_timeout = 3 } },
    { name = 'x', weight = 0 },
    'mta1:99999',
    { host = 'mta2', zone = '' },
  },
}
gateway.fleet { members = {} }
gateway.fleet { members = { { host = 'mta1:25' }, 'MTA1:25', { weight = 2 } } }
gateway.fleet { members = { 'mta1:25', { host = 'MTA1:25' } } }
gateway.fleet { zone = 1 }
gateway.fleet()
kumo.on('get_queue_config', function()
  kumo.make_queue_config { protocol = FLEET }
  return kumo.make_queue_config { protocol = { fleet = { members = { 'a' } }, maildir_path = '/m' } }
end)
kumo.on('smtp_server_message_received', function(msg)
  gateway.fleet { members = { { host = msg:id(), group = 'x' } } }
end)
