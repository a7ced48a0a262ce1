kumo.on('get_listener_domain', function(domain)
  if domain == 'a' then
    return kumo.make_listener_domain { relay_to = 'yes', log_oob = 'logthendrop', ttl = true }
  end
  if domain == 'b' then return kumo.make_listener_domain() end
  if domain == 'c' then return kumo.make_listener_domain 'relay' end
  return kumo.make_listener_domain {
    relay_from = { '10.0.0.1/24', '10.0.0.0/24', 'any', '[::1]' },
    log_relay = true,
  }
end)
