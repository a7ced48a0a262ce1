local kumo = require 'kumo'

kumo.on('get_listener_domain', function() end)

kumo.on('get_listener_domain', function() end)
