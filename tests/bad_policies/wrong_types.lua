kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = 25,
    max_connections = '100',
    max_message_size = 0,
    client_timeout = '5 fortnights',
    relay_hosts = '10.0.0.0/8',
    batch_handling = 'bifurcatealways',
    invalid_line_endings = 'fix',
    meta = { x_handler = function() end },
    line_length_hard_limit = 100,
  }
end)
