"""Networking that knows nothing of SMTP: streams over epoll, writing once a turn, TLS, addresses and names."""
