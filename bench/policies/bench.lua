-- The policy that the gateway (and KumoMTA, for comparison) is measured with: it decides every recipient by its
-- domain, keeps local logs and serves metrics, as a production policy does. Environment variables choose the variant:
--   BENCH_PORT, BENCH_HTTP   ports on 127.0.0.1 to listen on
--   BENCH_UPSTREAM           port of the sink; 0: accept and discard (queue null)
--   BENCH_LOGS               directory of the log records; empty: none are kept
--   BENCH_POLICY             cached; uncached: the handler looks at the clock; none: no handler, relay_hosts decides
--   BENCH_DOMAINS            0: relays to any domain; N: to in.example and d0.example … d<N-1>.example
--   BENCH_CIDRS              prefixes in relay_hosts besides loopback
--   BENCH_CHUNKING           1: send to the sink by BDAT, which it offers (the gateway's own option)
--   BENCH_REPORTS            1: in.example takes bounces and complaints, and logs and drops them
local kumo = require 'kumo'

local function number(name)
  return tonumber(os.getenv(name) or '0') or 0
end

local upstream = number 'BENCH_UPSTREAM'
local policy = os.getenv 'BENCH_POLICY' or 'cached'
local reports = number 'BENCH_REPORTS' == 1

local relay_hosts = {}
if policy == 'none' then
  relay_hosts[1] = '127.0.0.0/8'
end
for i = 1, number 'BENCH_CIDRS' do
  -- /24 networks from 11.0.0.0 on: none of them is loopback
  table.insert(relay_hosts, string.format('%d.%d.%d.0/24', 11 + i // 65536, i // 256 % 256, i % 256))
end

local domains = {}
for i = 0, number 'BENCH_DOMAINS' - 1 do
  domains[string.format('d%d.example', i)] = true
end

kumo.on('init', function()
  kumo.define_spool { name = 'data', path = os.getenv 'BENCH_SPOOL' .. '/data' }
  kumo.define_spool { name = 'meta', path = os.getenv 'BENCH_SPOOL' .. '/meta' }
  local logs = os.getenv 'BENCH_LOGS' or ''
  if logs ~= '' then
    kumo.configure_local_logs { log_dir = logs, max_segment_duration = '1 minute', min_free_space = '1%' }
  end
  kumo.start_http_listener { listen = '127.0.0.1:' .. os.getenv 'BENCH_HTTP' }
  kumo.start_esmtp_listener {
    listen = '127.0.0.1:' .. os.getenv 'BENCH_PORT',
    hostname = 'gateway.example',
    relay_hosts = relay_hosts,
    max_connections = 32000,
    max_messages_per_connection = 100000000,
    max_recipients_per_message = 1024,
    max_message_size = 64 * 1024 * 1024,
    meta = upstream == 0 and { queue = 'null' } or {},
  }
end)

if policy ~= 'none' then
  kumo.on('get_listener_domain', function(domain, listener, conn_meta)
    if policy == 'uncached' and os.time() == 0 then
      return nil
    end
    if reports and domain == 'in.example' then
      return kumo.make_listener_domain { log_oob = 'LogThenDrop', log_arf = 'LogThenDrop' }
    end
    if next(domains) == nil or domains[domain] or domain == 'in.example' then
      return kumo.make_listener_domain { relay_to = true }
    end
  end)
end

kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn_meta)
  return authc == 'bench' and password == 'bench'
end)

kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { '127.0.0.1:' .. upstream } } } }
end)

kumo.on('get_egress_path_config', function(routing_domain, egress_source, site_name)
  local path = {
    enable_tls = 'Disabled',
    prohibited_hosts = {},
    connection_limit = 64,
    max_deliveries_per_connection = 100000,
  }
  if os.getenv 'BENCH_CHUNKING' == '1' then
    path.enable_chunking = true
  end
  return kumo.make_egress_path(path)
end)
