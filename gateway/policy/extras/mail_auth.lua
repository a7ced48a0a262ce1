-- `require 'policy-extras.mail_auth'`: all that is known of who has sent a message, as a bundle of authentication results.

local kumo = require 'kumo'
local utils = require 'policy-extras.policy_utils'
local typing = require 'policy-extras.typing'

local Flag = typing.default(typing.boolean, true)
local Config = typing.record('MailAuthConfig', {
  dkim = Flag, spf = Flag, iprev = Flag, smtp_auth = Flag, dmarc = Flag, arc = Flag,
  add_auth_results_header = Flag,
  server_id = typing.option(typing.string),
  resolver = typing.option(typing.string),
})

local mail_auth = {}

-- Whether the name of an address has that address (RFC 8601 §2.7.3).
function mail_auth.iprev(ip, resolver)
  local result = { method = 'iprev', result = 'fail', props = { ['smtp.remote-ip'] = ip } }
  local known, names = pcall(kumo.dns.lookup_ptr, ip, resolver)
  if not known then
    result.result, result.reason = 'temperror', ('ip %s failed to resolve PTR: %s'):format(ip, names)
    return result
  end
  if #names == 0 then
    result.result, result.reason = 'permerror', ('ip %s has no PTR'):format(ip)
    return result
  end
  for number, name in ipairs(names) do
    if number > 10 then break end
    local found, addresses = pcall(kumo.dns.lookup_addr, name, resolver)
    if found then
      for _, address in ipairs(addresses) do
        if address == ip then
          result.result, result.reason = 'pass', ('ip %s <-> %s'):format(ip, name)
          return result
        end
      end
      result.reason = ('name %s has %s'):format(name, #addresses == 0 and 'no A/AAAA' or 'other addresses')
    elseif tostring(addresses):find('there is no such name', 1, true) then
      result.reason = ('name %s has no A/AAAA'):format(name)
    else
      result.result, result.reason = 'temperror', ('failed to resolve %s: %s'):format(name, addresses)
    end
  end
  return result
end

function mail_auth.iprev_msg(msg, resolver)
  return mail_auth.iprev((utils.split_ip_port(msg:get_meta 'received_from')), resolver)
end

local function login_of(msg)
  local props = { ['smtp.mailfrom'] = tostring(msg:sender()) }
  local user = msg:get_meta 'authn_id'
  if not user then return { method = 'auth', result = 'none', props = props } end
  props['smtp.auth'] = user
  return { method = 'auth', result = 'pass', props = props }
end

function mail_auth.check(msg, config)
  config = Config(config or {})
  local found, results = {}, {}
  local function noted(name, result)
    found[name] = result
    results[#results + 1] = result
  end

  if config.dkim then
    found.dkim = msg:dkim_verify(config.resolver)
    if #found.dkim == 0 then
      found.dkim = { { method = 'dkim', result = 'none', reason = 'message was not signed' } }
    end
    for _, result in ipairs(found.dkim) do results[#results + 1] = result end
  end
  if config.spf then noted('spf', kumo.spf.check_msg(msg, config.resolver).result) end
  if config.iprev then noted('iprev', mail_auth.iprev_msg(msg, config.resolver)) end
  if config.smtp_auth then noted('smtp_auth', login_of(msg)) end
  if config.dmarc and config.dkim and config.spf then
    noted('dmarc', kumo.dmarc.check_msg(msg, found.dkim, config.resolver, found.spf, false).result)
  end
  if config.arc then noted('arc', msg:arc_verify(config.resolver)) end

  if config.add_auth_results_header then
    msg:add_authentication_results(config.server_id or msg:get_meta 'hostname' or 'localhost', results)
  end
  found.auth_results = results
  return found
end

return mail_auth
