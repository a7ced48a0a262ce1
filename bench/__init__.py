"""The bench suite: what a message costs on this gateway and on what else could stand in its place.

It measures servers from outside, over SMTP and /proc, and shares no code with the gateway: nobody should
measure a server with its own client. README.md tells the method.
"""
