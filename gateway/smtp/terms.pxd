# The C types of terms.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport Content
from gateway.smtp.replies cimport Reply


@cython.final
cdef class MessageCount:
    cdef public Py_ssize_t messages


@cython.final
cdef class Terms:
    cdef readonly object params, relay_hosts, limits, limits_of_relay_hosts
    cdef readonly str hostname, scope
    cdef readonly Py_ssize_t max_line, max_size, max_recipients, max_messages
    cdef readonly bint rejects_lone_cr_lf, begins_otherwise, greets_late, takes_xclient
    cdef readonly bint implicit_tls, offer_tls, offer_auth, counts_networks, counts_identities
    cdef readonly bint received_header, supplemental_header, fix_line_endings, report_excerpt
    cdef readonly str header_name
    cdef readonly object batch_handling, feedback_senders
    cdef readonly tuple include_meta_names
    cdef readonly double processing_timeout
    cdef readonly Reply greeting
    cdef readonly tuple extensions, extensions_under_tls
    cdef tuple _lines, _offered, _read_lines
    cdef object _taken, _read
    cdef bint _tls

    cpdef read(self, tuple lines)
    cpdef tuple offered(self, tuple lines, taken, bint tls)
    cpdef Reply refusal_of(self, Content content)
