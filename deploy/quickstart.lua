-- A first policy. `make run` starts the gateway with it; `relay-gateway check deploy/quickstart.lua` checks it.
-- docs/policy.md lists everything a policy can say.

local kumo = require 'kumo'

-- `init` runs when the policy is loaded: it says where the gateway listens and where its records go.
kumo.on('init', function()
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:2525',
    relay_hosts = { '127.0.0.1', '::1' }, -- these clients may send to anywhere
  }
  kumo.start_http_listener { listen = '127.0.0.1:8025' } -- the status page, and /metrics
  kumo.configure_local_logs { log_dir = 'var/log', min_free_space = '1%' } -- relay-gateway logs -f var/log
end)

-- Asked about the recipient's domain and, where that alone does not decide, about the sender's. Returning nothing
-- grants nothing: relaying is denied unless a rule like these, or relay_hosts above, allows it.
kumo.on('get_listener_domain', function(domain, listener, conn_meta)
  if domain == 'example.com' then
    return kumo.make_listener_domain { relay_to = true } -- anybody may send mail to this domain
  end
  if domain == 'bounce.example.com' then
    -- Bounces of our mail come back here. They are logged, and nothing else happens to them.
    return kumo.make_listener_domain { log_oob = 'LogThenDrop' }
  end
  if conn_meta:get_meta 'authz_id' then
    return kumo.make_listener_domain { relay_to = true } -- clients that authenticated may send to anywhere
  end
end)

-- Where accepted mail goes. A real fleet looks like this:
--   protocol = { smtp = { mx_list = { 'mta1.internal:2525', 'mta2.internal:2525' } } }
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config { protocol = { maildir_path = 'var/maildir' } }
end)
