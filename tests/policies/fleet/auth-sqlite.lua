local kumo = require 'kumo'
local sqlite = require 'sqlite'

local DATABASE = '/opt/kumomta/etc/users.db'

kumo.on('init', function()
  local db = sqlite.open(DATABASE)
  db:execute 'CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY, secret TEXT)'
  db:execute('INSERT OR REPLACE INTO users VALUES (?, ?)', 'scott', kumo.digest.sha256('tiger').hex)
  kumo.start_esmtp_listener { listen = '0.0.0.0:587', relay_hosts = {} }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
end)

local secret_of = kumo.memoize(function(user)
  local db = sqlite.open(DATABASE)
  local found = db:execute('SELECT secret FROM users WHERE name = ?', user)
  return found[1] or ''
end, { name = 'secret_of', ttl = '1 minute', capacity = 1000 })

kumo.on('smtp_server_auth_plain', function(authz, authc, password)
  return secret_of(authc) == kumo.digest.sha256(password).hex
end)
kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if conn_meta:get_meta 'authn_id' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('smtp_server_message_received', function(msg, conn_meta)
  msg:set_meta('tenant', conn_meta:get_meta 'authn_id')
  local signer = kumo.dkim.rsa_sha256_signer {
    domain = msg:from_header().domain, selector = 'default', headers = { 'From', 'To', 'Subject' },
    key = '/opt/kumomta/etc/dkim/default.key',
  }
  msg:dkim_sign(signer)
end)
