# The C types of courier.py, which is compiled with them.

import cython

from gateway._fastpath cimport CounterPage
from gateway.couriers.courier cimport Courier
from gateway.couriers.fleet.fleet cimport Fleet
from gateway.handover cimport Batch
from gateway.later cimport Later
from gateway.net.streams cimport Poller

cdef class FleetCourier(Courier):
    cdef Poller _poller
    cdef object _outbox, _resolver
    cdef CounterPage _page
    cdef str _hostname
    cdef dict _fleets, _by_destination

    @cython.locals(fleet=Fleet)
    cpdef Later submit(self, Batch batch, destination, double deadline)
    cpdef bint sweep(self, double now) except? True
    cdef Fleet _find(self, destination)
