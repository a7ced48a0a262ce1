kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '127.0.0.1:25'
end)
