# The C types of connection.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport CounterPage
from gateway.inbound.reception cimport Reception
from gateway.delivery.services cimport Services
from gateway.logs.writer cimport LogWriter
from gateway.net.outbox cimport Outbox
from gateway.net.roster cimport Roster
from gateway.net.streams cimport Poller, Protocol, Stream

cdef class ConnectionHost:
    cdef readonly Services services
    cdef readonly object contexts, complaints
    cdef readonly Poller poller
    cdef readonly Outbox outbox
    cdef readonly Roster roster
    cdef readonly Py_ssize_t open

    cpdef opened(self, Connection connection)
    cpdef lost(self, Connection connection)

cdef class Connection(Protocol):
    cdef ConnectionHost _host
    cdef Poller _poller
    cdef object _transport
    cdef CounterPage _page
    cdef LogWriter _logs
    cdef Outbox _outbox
    cdef Reception _reception
    cdef double _timeout, _last_read, _began
    cdef bint _implicit
    cdef bint _closing, _eof, _shaking, _in_outbox, _turn_due, _waits, _reading_paused, _writing_paused, _resting
    cdef object _pace

    cpdef begin(self, Reception reception)
    cpdef data_received(self, bytes data)
    cpdef bint eof_received(self) except? False
    cpdef connection_lost(self, exc)
    cpdef pause_writing(self)
    cpdef resume_writing(self)
    cpdef check_idle(self, double now)
    cdef _advance(self)
    cdef _rest(self, Reception reception)
    cdef _check_pace(self, Reception reception, limits, double now, bint waits)
    cdef bint _is_held(self) except? False
    cpdef _in_the_next_turn(self)
    cpdef _go_on(self)
    cdef _wait_with_content(self, Reception reception)
    cpdef _take_turn(self)
    cdef _flush(self)

    @cython.locals(stream=Stream)
    cpdef write_out(self)
    cdef _pause_or_resume(self)
    cdef _close(self, bint linger)
