-- The Lua side of the policy runtime: what policies may reach, and how the gateway calls them.
--
-- Runs once per Lua state, before the policy. `host` holds the Python functions it needs, `sample` is any Python
-- object: all of them share one metatable. Functions of the `kumo` module live in api.py, not here.

local host, sample = ...
local getinfo, getmetatable, sethook, traceback = debug.getinfo, debug.getmetatable, debug.sethook, debug.traceback
local as_function, error, load, select, xpcall = python.as_function, error, load, select, xpcall

-- Python objects look like KumoMTA's userdata: fields and methods by name (runtime.py decides which), read-only.
local objects = getmetatable(sample)
objects.__metatable = false
objects.__len = function() return 0 end
objects.__pairs = function(object) return next, host.fields(object), nil end
objects.__tostring = function(object) return host.text(object) end

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

unstable(os, 'clock', 'date', 'execute', 'remove', 'rename', 'time', 'tmpname')
unstable(math, 'random', 'randomseed')
unstable(io, 'close', 'input', 'lines', 'open', 'output', 'popen', 'read', 'tmpfile', 'write')

-- A mistake in options that a policy is prepared for (inside pcall) is an error at once; while a policy loads, others
-- are collected.
for _, name in ipairs { 'pcall', 'xpcall' } do
  local original = _G[name]
  local function leave(...)
    host.protected(-1)
    return ...
  end
  _G[name] = function(...)
    host.protected(1)
    return leave(original(...))
  end
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

local function searcher(name)
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
for name in host.missing_modules:gmatch '%S+' do
  kumo[name] = setmetatable({}, {
    __index = function(_, key) error(('kumo.%s.%s is not supported by relay-gateway yet'):format(name, key), 2) end,
  })
end
package.loaded.kumo = kumo

local calls = {}
local trace

local function on_error(problem)
  trace = traceback('', 2)
  return problem
end

local function report(ok, ...)
  if ok then return true, select('#', ...), ... end
  return false, (...), trace
end

-- Runs a handler. Returns true, the number of its results and the results; or false, the error and a traceback.
function calls.run(handler, ...) return report(xpcall(handler, on_error, ...)) end

-- The file and line of the policy's code that called into the host.
function calls.where()
  for level = 2, 60 do
    local info = getinfo(level, 'Sl')
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

return calls
