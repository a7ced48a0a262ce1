# The C types of refusals.py, which is compiled with them.

cimport cython

from gateway.delivery.services cimport Services
from gateway.logs.records cimport Origin
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.replies cimport Reply

cdef class _Alike:
    cdef public Py_ssize_t room, left_out
    cdef public Reply last

cdef class RefusedCommand:
    cdef readonly object command, sender
    cdef readonly object recipients, why
    cdef readonly dict added


@cython.final
cdef class Refusals:
    cdef Services _services
    cdef dict _alike

    cpdef begin_anew(self, Origin origin, meta)
    cdef _Alike _of(self, reason)
