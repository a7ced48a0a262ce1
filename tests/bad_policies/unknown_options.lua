kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:25',
    relay_host = { '10.0.0.0/8' },
    trace_headers = { recieved_header = false },
    frobnicate = true,
    withhold_extensions = { 'chunking', 'CHUNKNG', 'ETRN' },
  }
end)
