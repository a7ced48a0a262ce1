# The C types of member.py, which is compiled with them.

cimport cython

from gateway.couriers.fleet.connection cimport MemberConnection

cdef double _SMOOTHING


@cython.final
cdef class Member:
    cdef public Py_ssize_t busy, probes
    cdef readonly Py_ssize_t connections, share
    cdef readonly double pace
    cdef Py_ssize_t _most_connections
    cdef double _grows_at
    cdef tuple _full
    cdef public str address
    cdef readonly Py_ssize_t most_recipients, window
    cdef readonly bint admits, watched, no_chunks
    cdef readonly object table, entry
    cdef object _health
    cdef bint _drained
    cdef Py_ssize_t _delivered, _refused, _deferred, _failed, _unknown
    cdef double _seconds
    cdef dict _failures

    cpdef bint trusted(self)
    cpdef bint claim(self, Py_ssize_t limit, double now) except? True
    cpdef connect(self, Py_ssize_t more, double now)
    cpdef learn_full(self, double now, MemberConnection connection)
    cpdef took(self, double seconds)
    cpdef declined(self, bint deferred)
    cpdef lost(self, bint unknown)
    cpdef failed(self, double now, MemberConnection connection, bint probe=*)
    cpdef stalled(self, double now, MemberConnection connection, double patience)
    cpdef probing(self, double now, double patience)
    cpdef greeted(self, double now)
    cpdef concluded(self, double now, MemberConnection connection)
    cpdef bint due(self, double now, bint needed) except? True
    cpdef sync(self, double now, Py_ssize_t limit, bint waiting)
    cpdef learn_limit(self, Py_ssize_t recipients, MemberConnection connection)
    cpdef learn_no_chunks(self, MemberConnection connection)
    cdef _count(self)
    cdef _learn(self, health)
    cdef _take(self, health)
