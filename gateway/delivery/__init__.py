"""Delivery: from a complete message to the reply to its final dot."""
