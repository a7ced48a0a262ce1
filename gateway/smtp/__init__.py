"""SMTP itself, without I/O: addresses, replies, the server's and the client's side of a session, trace headers."""
