"""Relaying: the fleet behind the gateway, connections to it, and delivery into a Maildir."""
