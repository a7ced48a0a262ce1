-- The Lua side of the policy runtime: what policies may reach, and how the gateway calls them.
--
-- Runs once per Lua state, before the policy. `host` holds the Python functions it needs, `sample` is any Python
-- object: all of them share one metatable. Functions of the `kumo` module live in api.py, not here.

local host, sample = ...
local getinfo, getmetatable, sethook, traceback = debug.getinfo, debug.getmetatable, debug.sethook, debug.traceback
local as_function, error, load, xpcall = python.as_function, error, load, xpcall
local format = string.format

-- Python objects look like KumoMTA's userdata: fields and methods by name (runtime.py decides which), read-only.
local objects = getmetatable(sample)
objects.__metatable = false
objects.__len = function() return 0 end
objects.__pairs = function(object) return next, host.fields(object), nil end
objects.__tostring = function(object) return host.text(object) end
objects.__close = function(object)
  local done = object.done or object.close
  if done then done(object) end
end
objects.__eq = as_function(host.equal)
objects.__add = as_function(host.add)
objects.__sub = as_function(host.subtract)

-- Functions whose answers may differ from one call to the next: a decision that used one is not cached.
local function unstable(library, ...)
  for _, name in ipairs { ... } do
    local original = library[name]
    library[name] = function(...)
      host.unstable()
      return original(...)
    end
  end
end

unstable(os, 'clock', 'date', 'remove', 'rename', 'time', 'tmpname')
unstable(math, 'random', 'randomseed')
unstable(io, 'close', 'input', 'lines', 'open', 'output', 'read', 'tmpfile', 'write')

-- Waiting. A handler runs in a coroutine of the pool below. A function of the host whose answer is not there yet yields
-- WAIT, and is resumed with the answer: true and a value, or false and an error. A policy's own coroutines pass WAIT
-- on outwards, so that what is inside them waits, too.
local create, resume, yield, running = coroutine.create, coroutine.resume, coroutine.yield, coroutine.running
local isyieldable, status, close = coroutine.isyieldable, coroutine.status, coroutine.close
local WAIT = {}
local NOT_HERE = '%s cannot wait here: inside table.sort, a callback of string.gsub, a metamethod __tostring, or require'
local anchored = {} -- never collected: an object that was handed to the host in a coroutine goes when the host lets go
local current -- the coroutine that runs, or ran last; nil for the main one, while there was no other
local original_pcall = pcall
local protected = 0 -- how many pcalls deep we are; it matters while a policy loads, when nothing interleaves

-- What ends a handler for good (it takes too long, it needs too much, nobody wants it any more) cannot be caught.
local function caught(ok, ...)
  protected = protected - 1
  if not ok and host.condemned() then error((...), 0) end
  return ok, ...
end

-- A mistake in options that a policy is prepared for (inside pcall) is an error at once; while a policy loads, others
-- are collected.
for _, name in ipairs { 'pcall', 'xpcall' } do
  local original = _G[name]
  _G[name] = function(...)
    protected = protected + 1
    return caught(original(...))
  end
end

local function answer(ok, ...)
  if ok then return ... end
  error((...), 0)
end

local function awaited(name, waits, ...)
  if not waits then return ... end
  if not isyieldable() then
    host.forget()
    error(NOT_HERE:format(name), 2)
  end
  return answer(yield(WAIT))
end

-- A function of the host that may have to wait: it returns false and its results, or true.
local function waiting(name, implementation)
  local call = as_function(implementation)
  return function(...) return awaited(name, call(...)) end
end

local function left(outer, ...)
  current = outer
  return ...
end

-- What ends a handler has to know which coroutine runs.
local addresses = setmetatable({}, { __mode = 'k' })

local function left_own(outer, ...)
  host.leave()
  return left(outer, ...)
end

local function resumed(thread, ...)
  local address = addresses[thread]
  if not address then
    address = tonumber(format('%p', thread))
    addresses[thread] = address
  end
  local outer = current
  current = thread
  host.enter(address)
  return left_own(outer, resume(thread, ...))
end

local function passed_on(thread, ok, ...)
  if ok and (...) == WAIT then
    if isyieldable() then return passed_on(thread, resumed(thread, yield(WAIT))) end
    host.forget()
    return passed_on(thread, resumed(thread, false, NOT_HERE:format 'a function'))
  end
  if not ok and host.condemned() then error((...), 0) end
  return ok, ...
end

function coroutine.create(f)
  local thread = create(f)
  if host.loading() then anchored[thread] = false end
  return thread
end

function coroutine.resume(thread, ...) return passed_on(thread, resumed(thread, ...)) end

function coroutine.wrap(f)
  local thread = coroutine.create(f)
  local function outcome(ok, ...)
    if ok then return ... end
    if status(thread) == 'dead' then close(thread) end
    error((...), 0)
  end
  return function(...) return outcome(passed_on(thread, resumed(thread, ...))) end
end

function coroutine.yield(...)
  if anchored[running()] then error('attempt to yield from outside a coroutine', 2) end
  return yield(...)
end

function coroutine.isyieldable() return isyieldable() and not anchored[running()] end

function coroutine.running()
  local thread, main = running()
  return thread, main or anchored[thread] == true
end

-- Lua files come from the policy's snapshot; only text is loaded, because bytecode can break the interpreter.
local function loaded(path, ...)
  local text = host.read(path)
  if not text then return nil, 'cannot open ' .. path end
  return load(text, '@' .. path, 't', ...)
end

function _G.load(chunk, name, _, ...) return load(chunk, name, 't', ...) end

function loadfile(path, _, ...) return loaded(path, ...) end

function dofile(path) return assert(loaded(path))() end

-- What a function of `policy-extras` asks, where it does nothing else: the host may ask that itself.
local behind = setmetatable({}, { __mode = 'k' })
local function stands_before(f, object) behind[f] = object end

-- What stands for everything that is left to the fleet: whatever is asked of it, the answer is itself, or nothing.
local inert = {}
local function itself() return inert end
local function no() return false end
setmetatable(inert, {
  __index = function(_, key)
    if type(key) ~= 'number' then return inert end -- ipairs ends
  end,
  __newindex = function() end,
  __call = itself,
  __len = function() return 0 end,
  __pairs = function() return next, {}, nil end,
  __tostring = function() return 'left to the fleet' end,
  __concat = function(one, other) return tostring(one) .. tostring(other) end,
  __lt = no, __le = no,
  __add = itself, __sub = itself, __mul = itself, __div = itself, __mod = itself, __pow = itself, __unm = itself,
  __idiv = itself,
  __close = function() end,
})

-- A table that only shows what is in another one has that in its metatable, under this key, for the border to find.
local SHOWN = {}

-- Functions of the host that a module of `policy-extras` gets with its name.
local function own_functions(extra)
  local found = { stands_before = stands_before, inert = inert, SHOWN = SHOWN }
  for name, implementation in pairs(host.extra_functions[extra] or {}) do found[name] = as_function(implementation) end
  return found
end

-- The same for what a policy publishes with: the host is told of each call, because nobody has got what was published.
local publisher = {}
do
  local behaviour = {}
  for key, value in pairs(getmetatable(inert)) do behaviour[key] = value end
  behaviour.__index = function(_, key)
    if type(key) ~= 'number' then return publisher end
  end
  behaviour.__call = function()
    host.published()
    return publisher
  end
  setmetatable(publisher, behaviour)
end

local left_extras = {}
for extra in host.left_extras:gmatch '%S+' do left_extras[extra] = true end

local function searcher(name)
  local extra = name:match '^policy%-extras%.([%w_]+)$'
  if extra and left_extras[extra] then
    host.leave_to_fleet(name)
    if not host.fleet or not host.extras(extra) then return itself end
  end
  local text = extra and host.extras(extra)
  if text then return load(text, '=policy-extras/' .. extra .. '.lua', 't'), own_functions(extra) end
  local tried = {}
  for template in package.path:gmatch '[^;]+' do
    local path = template:gsub('%?', function() return (name:gsub('%.', '/')) end)
    local chunk, problem = loaded(path)
    if chunk then return chunk, path end
    if host.read(path) then error(problem, 0) end
    tried[#tried + 1] = "no file '" .. path .. "'"
  end
  return table.concat(tried, '\n\t')
end

package.searchers = { package.searchers[1], searcher }
package.path, package.cpath = host.package_path, ''
package.loadlib, package.searchpath = nil, nil
os.exit, os.setlocale = nil, nil
python, debug = nil, nil
package.loaded.python, package.loaded.debug = nil, nil

-- The kumo module. Its functions are C functions, so that a tail call of one keeps its caller's line.
kumo = { version = host.version }
for name, implementation in pairs(host.functions) do kumo[name] = as_function(implementation) end
for name, implementation in pairs(host.waiting) do kumo[name] = waiting('kumo.' .. name, implementation) end
for name in host.left:gmatch '%S+' do
  local leave = kumo[name]
  kumo[name] = function(...)
    leave(...)
    return inert
  end
end
local publishers = {}
for name in host.publishers:gmatch '%S+' do publishers[name] = true end
local left_modules = {}
for name in host.left_modules:gmatch '%S+' do left_modules[name] = true end
for name in host.missing_modules:gmatch '%S+' do
  kumo[name] = setmetatable({}, left_modules[name] and {
    __index = function(_, key)
      host.leave_to_fleet(('kumo.%s.%s'):format(name, key))
      return publishers[name] and publisher or inert
    end,
  } or {
    __index = function(_, key) error(('kumo.%s.%s is not supported yet by relay-gateway'):format(name, key), 2) end,
  })
end
local type_of_file, close_file = io.type, io.close
for name, functions in pairs(host.modules) do
  local module = package.loaded[name] or {}
  for key, implementation in pairs(functions) do module[key] = as_function(implementation) end
  for key, implementation in pairs(host.waiting_in[name]) do
    module[key] = waiting(('%s.%s'):format(name, key), implementation)
  end
  package.loaded[name] = module
  local short = name:match '^kumo%.(.+)$'
  if short then kumo[short] = module end
end

-- Programs are files, too.
local type_of_program = io.type
function io.type(value) return type_of_program(value) or type_of_file(value) end
function io.close(...)
  if type_of_program((...)) then return (...):close() end
  return close_file(...)
end

kumo.gateway = { version = host.version, fleet = host.fleet } -- a file that is not only ours can ask where it is
package.loaded.kumo = kumo

-- The calls that are under way, from a level on: 0 is this function.
function kumo.traceback(level)
  local frames = {}
  for number = (level or 0) + 1, 200 do
    local info = getinfo(number, 'nSlt')
    if not info then break end
    frames[#frames + 1] = {
      event = 'Call', name = info.name, name_what = info.namewhat, source = info.source, short_src = info.short_src,
      line_defined = info.linedefined, last_line_defined = info.lastlinedefined, what = info.what,
      curr_line = info.currentline, is_tail_call = info.istailcall,
    }
  end
  return frames
end

-- An object of the host's is small here and large there, and is gone only after two rounds of the collector: one finds
-- it, the next frees it. So every few calls, which come with some objects each, count as much as those take outside.
--
-- It has to be the generational collector. lupa knows an object that it has handed out before by its place in a weak
-- table. Between the round that finds an object and the object's finalizer such a place is free, and goes to another
-- one: whoever is handed the first one meanwhile gets the other. The generational collector calls all finalizers with
-- the round; the incremental one lets the policy run in between. So how it collects is not for policies to say, either.
local collect = collectgarbage
collect('generational')
local modes = {
  incremental = 'generational', generational = 'generational', stop = 0, restart = 0, setpause = 0, setstepmul = 0,
}
function _G.collectgarbage(option, ...)
  if modes[option] then return modes[option] end
  return collect(option, ...)
end
local calls_since = 0

local function tidy()
  calls_since = calls_since + 1
  if calls_since >= 32 then
    calls_since = 0
    collect('step', 16)
  end
end

local calls = {}
local trace

local function on_error(problem)
  trace = traceback('', 2)
  if type(problem) ~= 'table' then return problem end
  local ok, text = original_pcall(tostring, problem) -- here, where what it does is limited
  return ok and text or 'an error that has no text'
end

-- The coroutines that handlers run in, by number; each serves one after the other, and is never collected.
local threads = {}

local function serve(handler, ...) return serve(yield(true, xpcall(handler, on_error, ...))) end

-- A new one. Returns its number and its address.
function calls.coroutine()
  local thread = create(serve)
  anchored[thread] = true
  threads[#threads + 1] = thread
  return #threads, tonumber(format('%p', thread))
end

-- Runs a handler in a coroutine that serves none, or goes on with one that waits: with true and what it waited for, or
-- false and an error. Returns true, true, whether it succeeded, and its results or its error; or true and WAIT; or false
-- and an error: not even that could be handled, and the coroutine is over. Nothing is done here that each call would pay.
function calls.resume(number, ...)
  local thread = threads[number]
  current = thread
  calls_since = calls_since + 1
  if calls_since >= 32 then tidy() end
  return resume(thread, ...)
end

-- The traceback of the last error.
function calls.trace()
  local where = trace
  trace = nil
  return where
end

-- Runs what is part of loading, outside of any coroutine. Returns true and the results; or false, the error and a
-- traceback.
function calls.run(f, ...)
  local function report(ok, ...)
    if ok then return true, ... end
    return false, (...), trace
  end
  return report(xpcall(f, on_error, ...))
end

function calls.collect()
  collect()
  collect()
end

calls.address = tonumber(format('%p', (running())))

function calls.protected() return protected end

calls.waiting = waiting

function calls.repeated(method)
  local pack, unpack = table.pack, table.unpack
  return function(object, ...)
    local given = pack(...)
    return function() return method(object, unpack(given, 1, given.n)) end
  end
end

-- A method of objects, which a policy sees as a function.
function calls.method(implementation)
  local call = as_function(implementation)
  return function(...) return call(...) end
end

-- Makes kumo.memoize of its file; returns what finds a value anew.
function calls.memoize(chunk, functions)
  local refresh
  kumo.memoize, refresh = chunk(functions, original_pcall, waiting, host.condemned, tidy, SHOWN)
  return refresh
end

-- The table behind one that only shows it, with what was written into that.
function calls.whole(shown)
  local metatable = getmetatable(shown)
  local behind = type(metatable) == 'table' and rawget(metatable, SHOWN)
  if not behind then return shown end
  if next(shown) == nil then return calls.whole(behind) end
  local _, merged = metatable.__pairs(shown)
  return merged
end

-- Lets keys.lua stand before the functions that take a KeySource.
function calls.key_sources(chunk, handler_of) chunk(as_function(handler_of)) end

-- The file and line of the policy's code that called into the host.
function calls.where()
  for level = current and 0 or 2, 60 do
    local info
    if current then info = getinfo(current, level, 'Sl') else info = getinfo(level, 'Sl') end
    if not info then break end
    if info.currentline > 0 and info.source:sub(1, 1) == '@' then return info.source:sub(2), info.currentline end
  end
  return nil
end

-- Calls a function of the host every so often while Lua code runs, which may fail to end it; nil: no more.
function calls.watch(watcher)
  if watcher then sethook(as_function(watcher), '', 1000000) else sethook() end
end

calls.tostring = tostring

function calls.is_inert(value) return value == inert or value == publisher end

function calls.behind(f) return behind[f] end

return calls
