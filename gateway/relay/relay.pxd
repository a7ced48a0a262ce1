# The C types of relay.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.relay.fleet cimport Fleet
from gateway.relay.handover cimport Batch

cdef class Relay:
    cdef object _loop, _outbox, _resolver, _maildirs, _timer
    cdef CounterPage _page
    cdef str _hostname
    cdef dict _fleets, _by_identity

    cpdef hand_over(self, Batch batch, queue, path, double deadline, done)
    cpdef Fleet _fleet(self, protocol, path)
