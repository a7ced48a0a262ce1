"""Log records on their way out: segments are read behind their writers, and brought to a sink, each record at least
once.

dispatch.py decides what is sent when, without I/O; source.py reads, state.py remembers, sinks/ has a module for each
kind of sink, and shipper.py is the loop between them. No mail ever waits for any of this.
"""
