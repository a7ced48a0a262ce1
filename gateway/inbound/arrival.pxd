# The C types of arrival.py, which is compiled with them.

cimport cython

from gateway.inbound.connection cimport Connection, ConnectionHost
from gateway.inbound.reception cimport Reception
from gateway.net.endpoints cimport Endpoints
from gateway.net.streams cimport Protocol, Stream
from gateway.policy.listener cimport TermsTable
from gateway.smtp.replies cimport Reply
from gateway.smtp.terms cimport Terms

cdef class ListenerHost(ConnectionHost):
    cdef tuple _bound_to
    cdef TermsTable _terms_table
    cdef str _hostname
    cdef readonly Py_ssize_t max_connections, arrived, refused
    cdef public Py_ssize_t awaited

    cpdef accepted(self, Stream stream)

    @cython.locals(terms=Terms, refusal=Reply)
    cpdef arrive(self, Stream stream, Endpoints endpoints)
    cpdef Terms terms_for(self, Endpoints endpoints)

    @cython.locals(refusal=Reply, connection=Connection, reception=Reception)
    cpdef introduced(self, Stream stream, Endpoints endpoints, Terms terms, bytes received)
    cpdef Reply admission(self, params)

cdef class _TurnedAway(Protocol):
    pass
