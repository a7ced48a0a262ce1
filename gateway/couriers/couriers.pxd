# The C types of couriers.py, which is compiled with them.

import cython

from gateway.couriers.courier cimport Courier
from gateway.couriers.fleet.courier cimport FleetCourier
from gateway.handover cimport Batch
from gateway.later cimport Later


@cython.final
cdef class Couriers:
    cdef object _loop, _timer
    cdef dict _by_type
    cdef FleetCourier _fleets
    cdef object _taken
    cdef double _look_at

    @cython.locals(courier=Courier)
    cpdef Later submit(self, Batch batch, destination, double deadline)
