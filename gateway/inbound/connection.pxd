# The C types of connection.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.logs.writer cimport LogWriter
from gateway.net.outbox cimport Outbox
from gateway.policy.listener cimport TermsTable
from gateway.inbound.reception cimport Reception
from gateway.net.roster cimport Roster
from gateway.smtp.replies cimport Reply
from gateway.net.streams cimport Poller, Protocol, Stream

cdef class ListenerHost:
    cdef readonly object services, contexts
    cdef readonly Poller poller
    cdef readonly Outbox outbox
    cdef readonly Roster roster
    cdef readonly tuple local_address
    cdef readonly TermsTable terms_table
    cdef LogWriter _logs
    cdef Py_ssize_t _open, _max_connections

    cpdef Reply admission(self, params)
    cpdef opened(self, Connection connection)
    cpdef lost(self, Connection connection)

cdef class Connection(Protocol):
    cdef ListenerHost _host
    cdef Poller _poller
    cdef object _transport, _linger, _params, _tls_task
    cdef CounterPage _page
    cdef LogWriter _logs
    cdef Outbox _outbox
    cdef Reception _reception
    cdef double _timeout, _last_read
    cdef bint _closing, _eof, _in_outbox, _reading_paused, _writing_paused

    cpdef begin(self, Stream stream)
    cpdef data_received(self, bytes data)
    cpdef bint eof_received(self) except? False
    cpdef connection_lost(self, exc)
    cpdef pause_writing(self)
    cpdef resume_writing(self)
    cpdef check_idle(self, double now)
    cpdef _advance(self)
    cpdef _flush(self)
    cpdef write_out(self)
    cpdef _pause_or_resume(self)
    cpdef _close(self, bint linger)
