-- `require 'policy-extras.policy_utils'`: small helpers that policies share. Nothing of mail here.

local utils = {}
local kumo = require 'kumo'

local function is_collection(value)
  return type(value) == 'table' or type(value) == 'userdata'
end

-- Deep comparison, of objects with pairs() too. ignore_mt: also where the first one has an __eq of its own.
function utils.equals(one, other, ignore_mt)
  if one == other then return true end
  if not (is_collection(one) and is_collection(other)) then return false end
  local metatable = getmetatable(one)
  if not ignore_mt and type(metatable) == 'table' and metatable.__eq then return one == other end
  for key, value in pairs(one) do
    if not utils.equals(value, other[key], ignore_mt) then return false end
  end
  for key in pairs(other) do
    if one[key] == nil then return false end
  end
  return true
end

local function encoded(value)
  local encodable, text = pcall(kumo.serde.json_encode, value)
  return encodable and text or tostring(value)
end

local function failed(message, ...)
  error((message and message .. '. ' or '') .. string.format(...), 3)
end

function utils.assert_eq(one, other, message)
  if not utils.equals(one, other) then failed(message, 'expected\n%s\n == \n%s', encoded(one), encoded(other)) end
end

function utils.assert_ne(one, other, message)
  if utils.equals(one, other) then failed(message, 'expected\n%s\n ~= \n%s', encoded(one), encoded(other)) end
end

function utils.assert_matches(text, pattern, message)
  if not kumo.regex.compile('(?s)' .. pattern):is_match(tostring(text)) then
    failed(message, 'expected\n%s\n matches \n%s', text, pattern)
  end
end

function utils.merge_into(source, destination)
  for key, value in pairs(source or {}) do
    destination[key] = value
  end
end

function utils.recursive_merge_into(source, destination)
  for key, value in pairs(source or {}) do
    if is_collection(value) and is_collection(destination[key]) then
      utils.recursive_merge_into(value, destination[key])
    else
      destination[key] = value
    end
  end
end

function utils.table_contains(list, wanted)
  for _, value in pairs(list or {}) do
    if value == wanted then return true end
  end
  return false
end

function utils.table_keys(map)
  local keys = {}
  for key in pairs(map) do
    keys[#keys + 1] = key
  end
  return keys
end

function utils.table_is_empty(map)
  for _ in pairs(map) do
    return false
  end
  return true
end

-- A table as it is; the content of a file as TOML where its name says so, otherwise as JSON.
function utils.load_json_or_toml_file(name)
  if type(name) ~= 'string' then return name end
  if utils.ends_with(name, '.toml') then return kumo.serde.toml_load(name) end
  return kumo.serde.json_load(name)
end

function utils.starts_with(text, prefix)
  return text:sub(1, #prefix) == prefix
end

function utils.ends_with(text, suffix)
  return suffix == '' or text:sub(-#suffix) == suffix
end

-- "192.0.2.1:25" or "[2001:db8::1]:25": the address without brackets, and the port as a string.
function utils.split_ip_port(text)
  local ip, port = text:match '^(.*):(%d+)$'
  if not ip then error(("'%s' is no address with a port"):format(text), 2) end
  return ip:match '^%[(.*)%]$' or ip, port
end

local function dumped(value, indent, open)
  if type(value) == 'number' or type(value) == 'boolean' then return tostring(value) end
  if type(value) == 'userdata' and value.email then return ('%q'):format(tostring(value)) end -- an address
  if not is_collection(value) then return ('%q'):format(tostring(value)) end
  if open[value] then return '[recursive node]' end
  open[value] = true
  local keys, lines = utils.table_keys(value), {}
  table.sort(keys, function(one, other)
    if type(one) == type(other) and type(one) ~= 'boolean' then return one < other end
    return type(one) < type(other)
  end)
  for index, key in ipairs(keys) do
    lines[index] = ('%s[%q] = %s'):format((' '):rep(indent), key, dumped(value[key], indent + 2, open))
  end
  open[value] = nil
  if #lines == 0 then return '{}' end
  return '{\n' .. table.concat(lines, ',\n') .. '\n' .. (' '):rep(indent - 2) .. '}'
end

-- A value in the manner of Lua, for people.
function utils.dumps(value)
  if value == nil then return nil end
  return dumped(value, 2, {})
end

return utils
