# The C types of courier.py, which is compiled with them.

import cython

from gateway.couriers.courier cimport Courier
from gateway.couriers.fleet.fleet cimport Fleet
from gateway.couriers.fleet.wiring cimport Wiring
from gateway.handover cimport Batch
from gateway.later cimport Later

cdef class FleetCourier(Courier):
    cdef Wiring _wiring
    cdef dict _by_destination, _fleets, _lanes, _members
    cdef double _ends
    cdef list _kept

    @cython.locals(fleet=Fleet)
    cpdef Later submit(self, Batch batch, destination, double deadline)
    cpdef bint sweep(self, double now) except? True
    cdef Fleet _find(self, destination)
    cdef _sync(self, double now)
