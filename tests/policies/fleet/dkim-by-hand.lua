local kumo = require 'kumo'
local SIGN = { ['sender.example'] = 's1', ['example.org'] = 's2' }

local signer_of = function(domain, selector)
  return kumo.dkim.rsa_sha256_signer {
    domain = domain, selector = selector, headers = { 'From', 'To', 'Subject', 'Date', 'Message-ID' },
    key = ('/opt/kumomta/etc/dkim/%s/%s.key'):format(domain, selector), over_sign = true,
  }
end

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
end)

kumo.on('smtp_server_message_received', function(msg)
  local failed = msg:check_fix_conformance('MISSING_COLON_VALUE', 'MISSING_DATE_HEADER|MISSING_MESSAGE_ID_HEADER')
  if failed then kumo.reject(552, '5.6.0 ' .. failed) end
  local from = msg:from_header()
  if not from then kumo.reject(552, '5.6.0 who is it from?') end
  local selector = SIGN[from.domain]
  if selector then msg:dkim_sign(signer_of(from.domain, selector)) end
  msg:dkim_sign(kumo.dkim.ed25519_signer { domain = 'node.example', selector = 'n', headers = { 'From' }, key = 'x' })
  msg:arc_seal(signer_of('node.example', 'arc'))
end)
