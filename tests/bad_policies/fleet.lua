kumo.on('get_queue_config', function()
  return kumo.make_queue_config {
    protocol = {
      smtp = {
        mx_list = { 'mta1:2525', 'mta2:99999', '2001:db8::1', '[not-an-ip]', { name = 'x' }, { name = 'y', addr = '/run/y' } },
      },
    },
    refresh_strategy = 'Never',
  }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { connection_limit = 'many', enable_tls = 'Always', smtp_port = 0 }
end)
kumo.make_queue_config { protocol = { smtp = { mx_list = {} } } }
kumo.make_queue_config { protocol = { smtp = {}, maildir_path = '/m/{{domain_part}}' } }
