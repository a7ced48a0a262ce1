# The C types of arrival.py, which is compiled with them.

cimport cython

from gateway.inbound.allowance cimport Allowance, allowance_of
from gateway.inbound.connection cimport Connection, ConnectionHost
from gateway.inbound.reception cimport Reception
from gateway.net.endpoints cimport Endpoints
from gateway.net.streams cimport Protocol, Stream
from gateway.smtp.replies cimport Reply
from gateway.smtp.terms cimport Terms

cdef class ListenerHost(ConnectionHost):
    cdef object _bound_to, _terms_table
    cdef Terms _same_for_all
    cdef str _hostname
    cdef public Py_ssize_t max_connections, arrived, refused, awaited

    cpdef accepted(self, Stream stream)
    cpdef arrive(self, Stream stream, Endpoints endpoints)

    @cython.locals(allowance=Allowance, refusal=Reply, connection=Connection, reception=Reception)
    cpdef introduced(self, Stream stream, Endpoints endpoints, Terms terms, bytes received)
    cpdef Reply admission(self, str hostname)

cdef class _TurnedAway(Protocol):
    pass
