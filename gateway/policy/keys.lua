-- Keys and passwords that come from elsewhere than a file or the policy's text: from the answer of a handler, or a vault.
-- Where a KeySource may stand, what it names is found here, before the host sees it: whoever finds it may have to wait.
--
-- Runs once per Lua state, after the prelude.

local handler_of = ...
local load_here = kumo.secrets.load
local unpack, rawget = table.unpack, rawget

local function answer_of(source)
  for name in pairs(source) do
    if name ~= 'event_name' and name ~= 'event_args' then
      error(("kumo.secrets.load: '%s' beside event_name"):format(tostring(name)), 0)
    end
  end
  local arguments = source.event_args
  if type(arguments) ~= 'table' then arguments = { arguments } end
  local answer = handler_of(source.event_name)(unpack(arguments))
  if type(answer) ~= 'string' then
    local message = "kumo.secrets.load: the handler of '%s' must return a string, not a %s"
    error(message:format(source.event_name, type(answer)), 0)
  end
  return answer
end

local function found(source)
  if type(source) == 'table' and rawget(source, 'event_name') ~= nil then return answer_of(source) end
  return load_here(source)
end

function kumo.secrets.load(source) return found(source) end

-- Raw, because what is left to the fleet has a field of every name.
local function is_elsewhere(value)
  if type(value) ~= 'table' then return false end
  return rawget(value, 'event_name') ~= nil or rawget(value, 'vault_mount') ~= nil or rawget(value, 'vault_path') ~= nil
end

local function here(source)
  if is_elsewhere(source) then return { key_data = found(source) } end
  return source
end

-- A copy in which every KeySource is here; the same table where nothing is elsewhere.
local function all_here(options)
  if is_elsewhere(options) then return here(options) end
  if type(options) ~= 'table' then return options end
  local copy
  for name, value in pairs(options) do
    local inner = all_here(value)
    if inner ~= value then
      if not copy then
        copy = {}
        for key, one in pairs(options) do copy[key] = one end
      end
      copy[name] = inner
    end
  end
  return copy or options
end

local start = kumo.start_esmtp_listener
function kumo.start_esmtp_listener(options) return start(all_here(options)) end

local crypto = kumo.crypto
for _, name in ipairs { 'aes_encrypt_block', 'aes_decrypt_block' } do
  local work = crypto[name]
  crypto[name] = function(algorithm, text, key) return work(algorithm, text, all_here(key)) end
end

for name, work in pairs(kumo.digest) do
  if name:match '^hmac_' then
    kumo.digest[name] = function(key, ...) return work(here(key), ...) end
  end
end

local sign = crypto.aws_sign_v4
function crypto.aws_sign_v4(request)
  if type(request) == 'table' and (is_elsewhere(request.access_key) or is_elsewhere(request.secret_key)) then
    local copy = {}
    for name, value in pairs(request) do copy[name] = value end
    copy.access_key, copy.secret_key = here(request.access_key), here(request.secret_key)
    request = copy
  end
  return sign(request)
end
