"""Policy: the Lua runtime, the kumo module, what policies declare, and the relay decision with its cache."""
