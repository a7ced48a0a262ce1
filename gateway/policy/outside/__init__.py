"""What policies ask of others: HTTP servers, DNS, databases, files; one file a module, as in gateway/policy/kumo.

A function takes an Outside first, then plain values; a method takes its object. One that is in the file's WAITING may
be a coroutine function of asyncio, or give a coroutine: the handler stands still until it is over, and it is cancelled
when nobody waits any more. A mistake, and whatever goes wrong outside, is a ValueError with a sentence. What is
answered may be another thing at any time, unless it is a Lasting. No Lua here: modules.py is the border.
"""
