# The C types of wiring.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.net.outbox cimport Outbox
from gateway.net.streams cimport Poller

cdef class Wiring:
    cdef readonly Poller poller
    cdef readonly CounterPage page
    cdef readonly str ehlo_domain
    cdef readonly Outbox outbox
    cdef readonly object resolver, table
    cdef public Py_ssize_t waiting
    cdef public bint closing, submitting
