# The C types of identity.py, which is compiled with them.

cimport cython

cdef long long _GREGORIAN, _VERSION_1


@cython.final
cdef class _Sequence:
    cdef long long last, slow
    cdef str suffix, rest

    cpdef reseed(self)
    cdef turn(self, long long slow)

cdef _Sequence _sequence


@cython.final
cdef class _Count:
    cdef long long count
    cdef str prefix

    cpdef reseed(self)

cdef _Count _sessions


@cython.locals(ticks="long long", slow="long long", low="long long")
cpdef str new_message_id(long long now_ns)

cpdef str new_session_id()
