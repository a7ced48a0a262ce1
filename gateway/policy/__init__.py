"""Policy: the Lua runtime, the kumo module, what policies declare, and the cache of its decisions."""
