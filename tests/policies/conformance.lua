-- Messages are checked and mended when they are there; what cannot be mended is refused.
local kumo = require 'kumo'

local MEND = 'MISSING_DATE_HEADER|MISSING_MESSAGE_ID_HEADER|MISSING_MIME_VERSION'

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:2525', relay_hosts = { '127.0.0.1' } }
end)

kumo.on('smtp_server_message_received', function(msg, conn_meta)
  local failed = msg:check_fix_conformance('MISSING_COLON_VALUE', MEND)
  if failed then kumo.reject(552, '5.6.0 ' .. failed) end
  msg:set_meta('x_peer', conn_meta:get_meta 'received_from')
end)
