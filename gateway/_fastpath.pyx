# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, embedsignature=True
"""Compiled kernels of the hot path: what grows with bytes or with table size, and nothing else.

This file is the table of contents; each topic is a fragment below. Kernels are `nogil` functions over
(pointer, length) that hold no Python object and never raise; the small classes around them convert and own
memory. The documented, typed face of this module is _fastpath.pyi. Protocol decisions do not live here.
"""

include "fastpath/bytes.pxi"     # Span and the byte-level helpers: the one place for pointer arithmetic
include "fastpath/cidr.pxi"      # CidrSet: the radix tree behind relay_hosts and relay_from
include "fastpath/cidr_text.pxi"  # how prefixes are written, and what is wrong with one that is not
include "fastpath/names.pxi"     # PackedNames: numbers by name, for a million names
include "fastpath/dots.pxi"      # stuff, unstuff, repair_line_endings: dots and line endings of a content
include "fastpath/content.pxi"   # Content, ContentStore: the octets of one message, in memory and in files
include "fastpath/framing.pxi"   # Framer: bytes of a connection -> lines and contents
include "fastpath/path.pxi"      # plain_from, plain_to, read_parameters: the usual arguments of MAIL and RCPT
include "fastpath/mime.pxi"      # count_fields; lines, header fields and encodings of a MIME message
include "fastpath/content_type.pxi"   # Content-Type and its parameters
include "fastpath/skip.pxi"      # octets among which nothing begins, passed over many at once
include "fastpath/parts.pxi"     # header sections and delimiter lines: where the parts of a multipart are
include "fastpath/report_types.pxi"   # which parts matter to a report, by their Content-Type
include "fastpath/report_parts.pxi"   # those among the children of a multipart; the text for people
include "fastpath/report_fields.pxi"  # the fields of reports as text, and which recipient they belong to
include "fastpath/report.pxi"    # Report: what one says
include "fastpath/report_scan.pxi"    # scan_report: is a message a bounce or a feedback report
include "fastpath/json.pxi"      # JsonLine: values put into a JSON object that is always the same
include "fastpath/counters.pxi"  # CounterPage: counters, gauges and histograms in shared memory
include "fastpath/limits.pxi"    # RateCells, HeldCells: what peers do in a time, counted by all processes together
include "fastpath/steps.pxi"    # step: a generator from one yield to the next
include "fastpath/lua.pxi"      # LuaLimits: memory and time of Lua code that runs
include "fastpath/sockets.pxi"  # accept, receive, send…, Epoll: sockets that never block
