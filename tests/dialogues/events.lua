-- Handlers that reject or fail when the mail asks for it: "reject" or "fail" in a name.
local function obey(name)
  if name:find 'reject' then
    kumo.reject(550, '5.7.0 no ' .. name)
  elseif name:find 'later' then
    kumo.reject(450, 'not now')
  elseif name:find 'leave' then
    kumo.reject(421, '4.3.2 go away')
  elseif name:find 'disconnect' then
    kumo.disconnect(550, '5.7.0 enough', 'FollowWith421')
  elseif name:find 'accept' then
    kumo.reject(250, 'fine')
  elseif name:find 'fail' then
    error('a fault in the policy: ' .. name)
  end
end

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.9.0.0/16' } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)

kumo.on('smtp_server_connection_accepted', function(conn_meta)
  if conn_meta:get_meta('received_from'):find '^127%.11%.' then
    kumo.reject(554, '5.7.1 not you')
  elseif conn_meta:get_meta('received_from'):find '^127%.10%.' then
    kumo.disconnect(554, '5.7.1 enough of you', 'FollowWith421')
  end
end)

kumo.on('smtp_server_ehlo', function(domain, conn_meta, extensions)
  obey(domain)
  if domain == 'fewer.example' then
    return { 'PIPELINING', 'X-OWN' }
  end
end)

kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn_meta)
  obey(authc)
  return authc == 'scott' and password == 'tiger'
end)

kumo.on('smtp_server_mail_from', function(sender, conn_meta)
  obey(sender.user)
end)

kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  obey(domain)
  if conn_meta:get_meta 'authz_id' == 'scott' then
    return kumo.make_listener_domain { relay_to = true }
  end
  if domain == 'plain-table.example' then
    return { relay_to = true }
  end
end)

kumo.on('smtp_server_rcpt_to', function(recipient, conn_meta)
  obey(recipient.user)
end)

kumo.on('smtp_server_message_received', function(msg, conn_meta)
  obey(msg:get_first_named_header_value 'Subject' or '')
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  if domain == 'queue-error.example' then
    error 'no queue for you'
  end
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
