"""Bounces and complaints: what the fields of RFC 3464 and RFC 5965 reports mean.

`_fastpath.scan_report` recognises a report and finds its fields; the modules here interpret them for log records,
for Lua and for the command line. Nothing here does I/O except `command` and `sources`, and no bad field ever loses a
report.
"""
