"""A message as an object: its envelope, content, header fields and metadata. No dialogue, no policy, no records."""
