local kumo = require 'kumo'
local listener_domains = require 'policy-extras.listener_domains'

kumo.on('get_listener_domain', listener_domains:setup {
  {
    ['*.bounce.example.com'] = { log_oob = 'LogThenDrop' },
    ['fbl.example.com'] = { log_arf = 'LogThenDrop' },
    ['postmaster.example.com'] = { relay_to = true, log_oob = true },
  },
  '/opt/kumomta/etc/policy/customers.json',
})

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '192.0.2.1' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.configure_log_disposition_hook { name = 'bounces', per_record = { OOB = { enable = true } } }
end)
kumo.on('log_disposition_bounces', function(msg, record)
  kumo.log_info('bounce of', record.recipient)
end)
