-- A node of its own: listens, spools, logs, and delivers to the world.
local kumo = require 'kumo'

kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '0.0.0.0:25',
    hostname = 'mail.example.com',
    banner = 'Welcome to example.com',
    relay_hosts = { '127.0.0.1', '192.168.1.0/24' },
  }
  kumo.start_http_listener { listen = '127.0.0.1:8000', trusted_hosts = { '127.0.0.1', '::1' } }
  kumo.define_spool { name = 'data', path = '/var/spool/kumomta/data', kind = 'RocksDB' }
  kumo.define_spool { name = 'meta', path = '/var/spool/kumomta/meta', kind = 'RocksDB' }
  kumo.configure_local_logs {
    log_dir = '/var/log/kumomta',
    max_segment_duration = '10 seconds',
    headers = { 'Subject', 'X-Customer-ID' },
    min_free_space = 0,
    min_free_inodes = 0,
  }
  kumo.configure_bounce_classifier { files = { '/opt/kumomta/share/bounce_classifier/iana.toml' } }
  kumo.set_diagnostic_log_filter 'kumod=info'
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {
    egress_pool = tenant,
    max_age = '1 hour',
    retry_interval = '10 minutes',
    max_retry_interval = '40 minutes',
  }
end)

kumo.on('get_egress_path_config', function(domain, source_name, site_name)
  return kumo.make_egress_path {
    connection_limit = 32,
    enable_tls = 'OpportunisticInsecure',
    max_message_rate = '1000/s',
    max_connection_rate = '100/min',
    smtp_auth_plain_username = 'node',
    smtp_auth_plain_password = { key_data = 'secret' },
  }
end)
