"""The service: supervisor, the processes it starts, and what they get from it."""
