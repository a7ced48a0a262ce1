kumo.on('get_listener_domains', function()
  kumo.log_warning 'hello'
  return kumo.make_listner_domain {}
end)
kumo.rejct(550, 'no')
