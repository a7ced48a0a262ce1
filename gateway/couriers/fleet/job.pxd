# The C types of job.py, which is compiled with them.

from gateway.couriers.fleet.connection cimport Connection
from gateway.couriers.handover cimport Batch
from gateway.smtp.client_values cimport Transaction
from gateway.smtp.replies cimport Reply

cdef class Job:
    cdef readonly Batch batch
    cdef public double deadline
    cdef readonly set tried
    cdef public Connection connection
    cdef list _outcomes
    cdef object _done
    cdef double _started

    cpdef bint begun(self)
    cpdef bint finished(self)
    cpdef Transaction next_transaction(self, Py_ssize_t most_recipients)
    cpdef settle(self, list outcomes)
    cpdef settle_rest(self, Reply reply)
    cpdef double report(self, str site)
