# Shared-memory counters.
