# The C types of connection.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.logs.writer cimport LogWriter
from gateway.outbox cimport Outbox
from gateway.reception cimport Reception
from gateway.smtp.replies cimport Reply

cdef class Connection:
    cdef object _host, _loop, _transport, _timer, _params, _tls_task
    cdef CounterPage _page
    cdef LogWriter _logs
    cdef Outbox _outbox
    cdef Reception _reception
    cdef double _timeout, _last_read
    cdef bint _closing, _eof, _in_outbox, _reading_paused, _writing_paused

    cpdef data_received(self, bytes data)
    cpdef _advance(self)
    cpdef _flush(self)
    cpdef write_out(self)
    cpdef _pause_or_resume(self)
