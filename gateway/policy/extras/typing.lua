-- `require 'policy-extras.typing'`: types that check values as they are assigned; helpers declare their options with it.
--
-- A type has a name and `check(value)`, which gives true and the value to keep, or false and what is wrong with it. A
-- type is called with a value to make one of it: `Point { x = 1, y = 2 }`. Nothing of mail here.

local _, host = ...
local typing = {}
local kumo = require 'kumo'

-- The type of a record, list or map that was made here.
local type_of = setmetatable({}, { __mode = 'k' })

local function shown(value)
  if type(value) == 'string' then return "'" .. value .. "'" end
  if type(value) == 'table' then
    local encodable, text = pcall(kumo.serde.json_encode_pretty, value)
    if encodable then return text end
  end
  return tostring(value)
end

-- What is wrong, and on the next line why.
local function because(message, reason)
  return reason and message .. '\n' .. tostring(reason) or message
end

local function new_type(name, check)
  local self = { name = name, check = check }
  return setmetatable(self, {
    __call = function(_, value)
      local fine, result = check(value)
      if not fine then error(result, 2) end
      return result
    end,
  })
end

-- A value of a type with fields or items: one that was made here, or a plain table that becomes one.
local function structure(name, build)
  local self
  self = new_type(name, function(value)
    if type_of[value] == self then return true, value end
    if type(value) ~= 'table' or type_of[value] then
      local found = type_of[value] and type_of[value].name or type(value)
      local with = type(value) == 'table' and ' with value ' or ' '
      return false, ("Expected value of type '%s' but got type '%s'%s%s"):format(name, found, with, shown(value))
    end
    local made, problem = build(self, value)
    if made then return true, made end
    return false, problem
  end)
  return self
end

-- An object whose assignments go through `assign(key, value)`, which gives true and the value or false and a problem.
local function checked(of_type, assign, read)
  local values = {}
  local object = setmetatable({}, {
    [host.SHOWN] = values,
    __index = function(_, key)
      local value = values[key]
      if value == nil and read then read(key) end
      return value
    end,
    __newindex = function(_, key, value)
      local fine, result = assign(key, value)
      if not fine then error(result, 2) end
      values[key] = result
    end,
    __pairs = function() return next, values, nil end,
    __len = function() return #values end,
  })
  type_of[object] = of_type
  return object, values
end

local function filled(object, values, assign, source)
  for key, value in pairs(source) do
    local fine, result = assign(key, value)
    if not fine then return nil, result end
    values[key] = result
  end
  return object
end

-- --- plain values ---

local function scalar(name)
  return new_type(name, function(value)
    if type(value) == name then return true, value end
    return false, ("Expected '%s', got '%s' %s"):format(name, type(value), shown(value))
  end)
end

typing.number = scalar 'number'
typing.string = scalar 'string'
typing.boolean = scalar 'boolean'
typing.Function = scalar 'function'
typing.any = new_type('any', function(value) return true, value end)

function typing.enum(name, ...)
  local quoted, known = {}, {}
  for index, value in ipairs { ... } do
    quoted[index], known[value] = shown(value), true
  end
  return new_type(name, function(value)
    if value ~= nil and known[value] then return true, value end
    local expected = table.concat(quoted, ', ')
    return false, ("Unexpected '%s' value %s, expected one of %s"):format(name, shown(value), expected)
  end)
end

-- --- types of types ---

function typing.option(target)
  local self = new_type(('option<%s>'):format(target.name), function(value)
    if value == nil then return true, nil end
    return target.check(value)
  end)
  self.optional = true
  return self
end

function typing.default(target, value)
  local self = new_type(target.name, function(given)
    if given == nil then return target.check(value) end
    return target.check(given)
  end)
  self.optional, self.default_value = true, value
  return self
end

function typing.variant(...)
  local variants, names = { ... }, {}
  if #variants < 2 then
    error(('typing.variant: must have a list of 2 or more variants, %d were provided'):format(#variants), 2)
  end
  for index, variant in ipairs(variants) do
    names[index] = variant.name
  end
  local name = ('variant<%s>'):format(table.concat(names, ','))
  return new_type(name, function(value)
    local failures = {}
    for index, variant in ipairs(variants) do
      local fine, result = variant.check(value)
      if fine then return true, result end
      failures[index] = tostring(result)
    end
    return false,
      ("Unexpected '%s' value %s. Failed to match any allowed variant: %s"):format(
        name,
        shown(value),
        table.concat(failures, '. ')
      )
  end)
end

function typing.list(item)
  local name = ('list<%s>'):format(item.name)
  local function assign(index, value)
    if math.type(index) ~= 'integer' then
      return false, ('%s: invalid idx %s'):format(name, shown(index))
    end
    local fine, result = item.check(value)
    if fine then return true, result end
    return false, because(('%s: invalid value for idx %d'):format(name, index), result)
  end
  return structure(name, function(self, source)
    local object, values = checked(self, assign)
    return filled(object, values, assign, source)
  end)
end

function typing.map(key_type, value_type)
  local name = ('map<%s,%s>'):format(key_type.name, value_type.name)
  local function assign(key, value)
    local fine, problem = key_type.check(key)
    if not fine then return false, because(('%s: invalid key %s'):format(name, shown(key)), problem) end
    if value == nil then return true, nil end
    local right, result = value_type.check(value)
    if right then return true, result end
    return false, because(('%s: invalid value for key %s'):format(name, shown(key)), result)
  end
  return structure(name, function(self, source)
    local object, values = checked(self, assign)
    return filled(object, values, assign, source)
  end)
end

-- fields: types by name. `_dynamic(name, value)` decides about all other fields: true, or false and what is wrong with
-- the value; false alone where there is no such field.
function typing.record(name, fields)
  local function assign(key, value)
    local field = key ~= '_dynamic' and fields[key]
    if field then
      local fine, result = field.check(value)
      if fine then return true, result end
      return false, because(("%s: invalid value for field '%s'"):format(name, key), result)
    end
    if fields._dynamic then
      local fine, problem = fields._dynamic(key, value)
      if fine then return true, value end
      if problem then return false, because(("%s: invalid value for field '%s'"):format(name, key), problem) end
    end
    return false, ("%s: unknown field '%s'"):format(name, key)
  end
  local function read(key)
    if not fields[key] and not fields._dynamic then
      error(("%s: attempt to read unknown field '%s'"):format(name, key), 3)
    end
  end
  return structure(name, function(self, source)
    local object, values = checked(self, assign, read)
    local made, problem = filled(object, values, assign, source)
    if not made then return nil, problem end
    for key, field in pairs(fields) do
      if key ~= '_dynamic' and values[key] == nil then
        if field.default_value ~= nil then
          values[key] = field(field.default_value)
        elseif not field.optional then
          return nil, ("%s: missing value for field '%s' of type '%s'"):format(name, key, field.name)
        end
      end
    end
    return object
  end)
end

-- The part of an error of kumo.make_… that says what is wrong.
function typing.extract_deserialize_error(problem)
  local text = tostring(problem)
  return text:match 'deserialize error: (.*), while processing' or text
end

return typing
