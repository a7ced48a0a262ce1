# The C types of connection.py, which is compiled with them.

cimport cython

from gateway.net.outbox cimport Outbox
from gateway.smtp.client cimport ClientSession
from gateway.smtp.exchange cimport Exchange
from gateway.net.streams cimport Poller, Protocol, Stream

cdef class Owner

cdef class MemberConnection(Protocol):
    cdef readonly ClientSession session
    cdef readonly Exchange exchange
    cdef readonly object host, route, client
    cdef public object job
    cdef readonly str session_id, address, source_address, tls_cipher, tls_protocol_version
    cdef readonly Py_ssize_t transactions
    cdef readonly double started, begun
    cdef Poller _poller
    cdef object _resolver, _path, _transport, _task
    cdef Owner _owner
    cdef Outbox _outbox
    cdef double _since
    cdef readonly bint is_lmtp
    cdef bint _unsent, _in_outbox, _waits, _ended

    cpdef bint ready(self)
    cpdef bint suits(self, client) except? True
    cpdef introduce(self, client)
    cpdef begin(self, Exchange exchange)
    cpdef quit(self)
    cpdef abort(self, failure, str detail)
    cpdef data_received(self, bytes data)
    cpdef bint eof_received(self) except? False
    cpdef pause_writing(self)
    cpdef resume_writing(self)
    cpdef connection_lost(self, exc)
    cdef _flush(self)

    @cython.locals(stream=Stream, session=ClientSession)
    cpdef write_out(self)
    cdef _wait_for_turn(self)
    cpdef _take_turn(self)
    cdef _on(self, event)
    cdef _on_concluded(self)
    cdef _end(self)

cdef class Owner:
    cpdef connection_opened(self, MemberConnection connection)
    cpdef connection_ready(self, MemberConnection connection)
    cpdef exchange_concluded(self, MemberConnection connection, Exchange exchange)
    cpdef connection_ended(self, MemberConnection connection)
