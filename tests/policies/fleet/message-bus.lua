local kumo = require 'kumo'
local log_hooks = require 'policy-extras.log_hooks'

log_hooks:new {
  name = 'amqp',
  meta = { 'tenant', 'campaign' },
  constructor = function(domain, tenant, campaign)
    local sender = {}
    local client = kumo.amqp.build_client 'amqp://localhost:5672'
    function sender:send(message)
      local confirm = client:publish { routing_key = 'logging', payload = message:get_data() }
      local result = confirm:wait()
      if result.status == 'Ack' or result.status == 'NotRequested' then return 'ok' end
      kumo.reject(500, kumo.json_encode(result))
    end
    function sender:close() client:close() end
    return sender
  end,
}

local producer = kumo.kafka.build_producer { ['bootstrap.servers'] = 'kafka.example.com:9092' }
local nats = kumo.nats.connect { servers = { 'nats.example.com:4222' } }
local queue = kumo.mpsc.define('records', 10000)
local client_of = kumo.memoize(function() return tostring(producer) end, { name = 'x', ttl = '5m', capacity = 10 })

kumo.on('init', function()
  kumo.start_esmtp_listener { listen = '0.0.0.0:25', relay_hosts = { '127.0.0.0/8' } }
  kumo.configure_local_logs { log_dir = '/var/log/kumomta', min_free_space = 0, min_free_inodes = 0 }
  kumo.spawn_task { event_name = 'drain.records', args = {} }
  client_of()
end)
kumo.on('drain.records', function() for _, record in ipairs(queue:try_recv() or {}) do producer:send(record) end end)
kumo.on('log_disposition_bounces', function(msg, record) queue:try_send(record) end)
kumo.on('smtp_server_message_received', function(msg) msg:set_meta('campaign', 'spring') end)
