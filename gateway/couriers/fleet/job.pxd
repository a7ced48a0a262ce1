# The C types of job.py, which is compiled with them.

from gateway.couriers.fleet.connection cimport Connection
from gateway.handover cimport Batch, HandOver
from gateway.later cimport Later
from gateway.smtp.client_values cimport Transaction
from gateway.smtp.replies cimport Reply

cdef class Job:
    cdef readonly Batch batch
    cdef readonly Later later
    cdef public double deadline
    cdef readonly set tried
    cdef public Connection connection
    cdef list _outcomes
    cdef HandOver _hand_over
    cdef double _started

    cpdef bint begun(self)
    cpdef bint finished(self)
    cpdef Transaction next_transaction(self, Py_ssize_t most_recipients)
    cpdef settle(self, list outcomes)
    cpdef settle_rest(self, Reply reply)
    cpdef double conclude(self, str site) except -1
    cdef HandOver _made(self, str site)
