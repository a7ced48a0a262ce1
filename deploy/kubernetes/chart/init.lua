-- The policy of a gateway in Kubernetes. docs/policy.md lists everything a policy can say. Ports are those of the chart.

local kumo = require 'kumo'

kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '0.0.0.0:2525',
    relay_hosts = { '10.0.0.0/8' }, -- these may send to anywhere: the cluster's pods
  }
  kumo.start_http_listener { listen = '0.0.0.0:8025', trusted_hosts = { '127.0.0.1', '10.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/lib/relay-gateway/log', max_segment_duration = '1 minute' }
end)

-- Bounces of our mail come back here. They are logged, and nothing else happens to them.
kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if domain == 'bounce.example.com' then
    return kumo.make_listener_domain { log_oob = 'LogThenDrop' }
  end
end)
