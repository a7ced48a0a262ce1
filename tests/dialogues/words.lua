-- Replies in the policy's words; whoever greets with "slow.example" waits for each of them.
kumo.on('init', function()
  kumo.start_esmtp_listener { listen = LISTEN, hostname = 'gw.example', relay_hosts = { '127.9.0.0/16' } }
  kumo.start_http_listener { listen = HTTP }
  kumo.configure_local_logs { log_dir = LOGS, min_free_space = 0 }
end)

kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn_meta)
  return { hostname = 'own.example', via = { ['127.0.0.1'] = { banner = 'at your service' } } }
end)

kumo.on('smtp_server_rewrite_response', function(status, response, command, conn_meta)
  if conn_meta:get_meta 'ehlo_domain' == 'slow.example' then
    kumo.sleep(0.01)
  end
  if command == 'DATA' and status == 250 then
    return 550, 'never mind'
  elseif command == 'NOOP fine' then
    return 250, 'super fantastic!\n' .. response
  elseif status == 550 then
    return 451, '4.7.1 ask again later'
  elseif command == 'HELP me' then
    return nil, 'help yourself'
  elseif command == 'FAIL' then
    error 'a fault in the policy'
  end
end)

kumo.on('smtp_server_auth_plain', function() return true end)

kumo.on('smtp_server_data', function(msg, conn_meta)
  msg:prepend_header('X-Data', tostring(#msg:recipient_list()))
end)

kumo.on('smtp_server_split_transaction', function(msg, conn_meta)
  local groups = {}
  for _, recipient in ipairs(msg:recipient_list()) do
    groups[recipient.user] = groups[recipient.user] or {}
    table.insert(groups[recipient.user], recipient)
  end
  return groups
end)

kumo.on('get_queue_config', function()
  return kumo.make_queue_config { protocol = { maildir_path = MAILDIR } }
end)
