"""Policy in Lua: everything that knows what a policy file may say and do.

How a function for policies is added:

- It is a plain Python function over plain values, entered by its name in a table (modules.py for `kumo.NAME.*`,
  api.py for `kumo.*`, `Exposed.methods` of runtime.py for methods of objects); the runtime, `check` and the docs use
  the tables.
- A mistake of the caller's is a `Fault` (or a ValueError where the table's reader says so): a Lua error with its text.
  Any other exception is a fault of ours: the command is 451 4.3.0, the traceback is logged.
- It never blocks. What takes time returns a `Later` and is entered as `Waiting(function)`: the Lua code that called it
  stands still until the answer, a plain value, is there. `Runs.background` makes Laters of time, of asyncio's
  coroutines and of work in threads (background.py). A Later that is cancelled stops its work: nobody wants it any more.
- What asks others (HTTP, DNS, databases, files) is in gateway/policy/outside, as coroutines; modules.py makes them
  Waiting, and their answers Lasting or unstable.
- It tells the cache of decisions what its answer stands on: `Runs.unstable()` where that may be another one at any
  time, or `running.evaluation.lasts_until(when)`, on the policy's clock, where it holds until then; nothing where it
  depends on its arguments alone.
- A Lua object (table, function) that it is given is converted before it returns or waits, and never kept: it belongs to
  a coroutine that may be gone. What has to keep one is written in Lua (memoize.lua).
- It hands out no object of its own for each call where a number does: Lua's collector is slow to let go of objects.
"""
