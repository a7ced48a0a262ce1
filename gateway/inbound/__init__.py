"""Inbound: a client's connection from its arrival to its replies."""
