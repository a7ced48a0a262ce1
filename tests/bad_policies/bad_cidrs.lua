kumo.on('init', function()
  kumo.start_esmtp_listener {
    relay_hosts = { '10.0.0.1/8', 'localhost' },
    peer = {
      ['10.0.0.0/33'] = {},
      ['192.168/16'] = { listen = '127.0.0.1:25', via = { ['::1/64'] = {} } },
    },
  }
end)
