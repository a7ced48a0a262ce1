"""Couriers: whoever takes a message from the gateway: the fleet's members, a Maildir, the spool."""
