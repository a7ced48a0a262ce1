-- kumo.memoize: results of a policy's functions, kept for a time. Values stay here, as Lua has them; what they are
-- known by, the clock, and those who wait for one another are memo.py's.
--
-- Runs once per Lua state, after the prelude. Returns the function, and what finds a value anew in the background.

local host, pcall, waiting, condemned, tidy, SHOWN = ...
local join = waiting('kumo.memoize', host.join)
local caches = {} -- by name

-- A bounded map that forgets what was not used lately: two generations, as in decision_cache.py.
local function new_cache(options)
  local half = math.max(1, options.capacity // 2)
  local young, old, size = {}, {}, 0
  local cache = { options = options, flights = {}, pending = {} }

  function cache.put(key, entry)
    if young[key] == nil then
      if size >= half then
        old, young, size = young, {}, 0
      end
      size = size + 1
    end
    young[key] = entry
  end

  function cache.get(key)
    local entry = young[key]
    if entry == nil then
      entry = old[key]
      if entry ~= nil then
        old[key] = nil
        cache.put(key, entry)
      end
    end
    return entry
  end

  return cache
end

-- What was kept is everybody's: a table is shown, not given; what is written goes into the copy.
local function shown(value)
  if type(value) ~= 'table' then return value end
  return setmetatable({}, {
    [SHOWN] = value,
    __index = function(_, key) return shown(value[key]) end,
    __len = function() return #value end,
    __pairs = function(copy)
      local merged = {}
      for key, item in pairs(value) do merged[key] = shown(item) end
      for key, item in next, copy do merged[key] = item end
      return next, merged, nil
    end,
  })
end

local function entry_of(options, ok, count, ...)
  local now = host.now()
  if not ok then
    local keeps, problem = host.failure((...))
    return { expires = keeps and now + host.keep_errors or now, failed = true, value = problem }
  end
  local value = ...
  if count > 1 then value = { ... } end
  local kind = type(value)
  if kind == 'function' or kind == 'thread' then
    return { expires = now + host.keep_errors, failed = true, value = ('kumo.memoize: cannot keep a %s'):format(kind) }
  end
  return { expires = now + options.ttl, value = value }
end

local function counted(ok, ...) return ok, select('#', ...), ... end

local function populate(cache, key, fn, ...)
  tidy()
  local flight = cache.flights[key] or host.flight()
  cache.flights[key] = flight
  local reader = host.apart()
  local entry = entry_of(cache.options, counted(pcall(fn, ...)))
  host.together(reader)
  cache.flights[key] = nil
  local over = condemned()
  if not over and entry.expires > host.now() then cache.put(key, entry) end
  host.land(flight)
  if over then error(entry.value, 0) end
  return entry
end

local pending = {} -- what is found anew in the background, by number
local number = 0

local function refresh(which)
  local call = pending[which]
  pending[which] = nil
  call()
end

local function found(cache, key, fn, ...)
  local options, entry = cache.options, cache.get(key)
  local patient = true
  while not (entry and host.now() < entry.expires) do
    local flight = cache.flights[key]
    if entry and options.allow_stale_reads and not entry.failed then
      if not flight then
        number = number + 1
        local arguments = table.pack(...)
        pending[number] = function() populate(cache, key, fn, table.unpack(arguments, 1, arguments.n)) end
        cache.flights[key] = host.flight()
        host.refresh(number)
      end
      break
    end
    if not flight or not patient then
      entry = populate(cache, key, fn, ...)
      break
    end
    if not join(flight, options.populate_timeout) then
      if not options.retry_on_populate_timeout then
        error(('kumo.memoize: %s: the value is not there after %g seconds'):format(options.name, options.populate_timeout), 0)
      end
      patient = false
    end
    entry = cache.get(key)
  end
  host.lasts_until(entry.expires)
  if entry.failed then error(entry.value, 0) end
  return shown(entry.value)
end

local function memoize(fn, options)
  local checked = host.options(fn, options)
  if not checked then return fn end
  local cache = caches[checked.name]
  if not cache or not host.same(cache.options.mark, checked.mark) then
    cache = new_cache(checked)
    caches[checked.name] = cache
  end
  return function(...) return found(cache, host.key(...), fn, ...) end
end

return memoize, refresh
