# The C types of relay.py, which is compiled with them.

import cython

from gateway._fastpath cimport CounterPage
from gateway.couriers.fleet.fleet cimport Fleet
from gateway.couriers.handover cimport Batch
from gateway.net.streams cimport Poller

cdef class Relay:
    cdef Poller _poller
    cdef object _loop, _outbox, _resolver, _maildirs, _timer
    cdef CounterPage _page
    cdef str _hostname
    cdef dict _fleets, _by_destination

    @cython.locals(fleet=Fleet)
    cpdef hand_over(self, Batch batch, destination, double deadline, done)
    cdef Fleet _find_fleet(self, destination, protocol)
