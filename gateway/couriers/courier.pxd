# The C types of courier.py, which is compiled with them.

from gateway.handover cimport Batch
from gateway.later cimport Later

cdef class Courier:
    cpdef Later submit(self, Batch batch, destination, double deadline)
    cpdef Py_ssize_t room(self, destination) except -1
    cpdef bint sweep(self, double now) except? True
    cpdef close(self, double deadline)
