# The C types of tls_stream.py, which is compiled with them.

from gateway.net.streams cimport Poller, Protocol, Stream

cdef class TlsStream(Protocol):
    cdef Poller _poller
    cdef Stream _stream
    cdef Protocol _protocol
    cdef object _outcomes, _ssl, _incoming, _outgoing, _timer, _earlier
    cdef bytes _raw, _hello
    cdef Py_ssize_t _at
    cdef bint _shaken, _paused, _at_end, _end_told, _closing

    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef write(self, bytes data)
    cpdef writelines(self, list chunks)
    cpdef close(self)
    cpdef finish(self, double linger)
    cpdef abort(self)
    cpdef data_received(self, bytes data)
    cpdef bint eof_received(self) except? False
    cpdef connection_lost(self, exc)
    cpdef pause_writing(self)
    cpdef resume_writing(self)
    cdef _shake(self)
    cdef _try_earlier(self)
    cpdef _read(self)
    cdef bint _feed(self) except? False
    cdef _flush(self)
    cdef _say_goodbye(self)
