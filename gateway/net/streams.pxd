# The C types of streams.py, which is compiled with them.

cimport cython

from gateway cimport _fastpath as fp
from gateway._fastpath cimport Epoll  # so spelt, Cython sees that this module depends on _fastpath.pxd
from gateway.net.outbox cimport Writer

cdef class Protocol(Writer):
    cpdef data_received(self, bytes data)
    cpdef bint eof_received(self) except? False
    cpdef connection_lost(self, exc)
    cpdef pause_writing(self)
    cpdef resume_writing(self)

cdef class Source:
    cpdef ready(self, bint readable, bint writable)

cdef class Poller:
    cdef readonly object loop, turns
    cdef Epoll _epoll
    cdef dict _sources
    cdef bint _in_turn
    cdef double _now
    cdef list _soon

    cpdef double time(self) except? -1
    cpdef call_soon(self, callback)
    cpdef next_turn(self, callback)
    cpdef watch(self, int fd, Source source, bint read, bint write)
    cpdef closing(self, int fd)

    @cython.locals(epoll=Epoll, source=Source)
    cpdef _turn(self)
    cdef _end_turn(self)

cdef class Stream(Source):
    cdef readonly tuple peer
    cdef Poller _poller
    cdef Protocol _protocol
    cdef object _error, _linger
    cdef int _fd
    cdef list _backlog
    cdef Py_ssize_t _high, _begun, _waiting, _dropped
    cdef bint _reading, _told_to_pause, _in_ready, _writes_no_more, _reads_no_more, _closing

    cpdef set_protocol(self, Protocol protocol)
    cpdef set_write_buffer_limits(self, Py_ssize_t high)
    cpdef pause_reading(self)
    cpdef resume_reading(self)
    cpdef write(self, bytes data)

    @cython.locals(chunk=bytes, taken=Py_ssize_t, size=Py_ssize_t)
    cpdef writelines(self, list chunks)
    cpdef write_eof(self)
    cpdef close(self)
    cpdef finish(self, double linger)
    cpdef abort(self)
    cpdef ready(self, bint readable, bint writable)
    cdef _read(self)
    cdef _keep(self, list chunks, Py_ssize_t size, Py_ssize_t taken)
    cdef _take_off(self, Py_ssize_t taken)
    cdef _write_backlog(self)
    cdef _written_out(self)
    cdef _watch(self)
    cdef _drop(self, error)

cdef class Acceptor(Source):
    cdef Poller _poller
    cdef object _sock, _accepted, _gone, _exhausted, _rest
    cdef readonly bint resting
    cdef int _fd

    cpdef ready(self, bint readable, bint writable)
