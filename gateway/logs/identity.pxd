# The C types of identity.py, which is compiled with them.

cimport cython

cdef long long _GREGORIAN, _VERSION_1


@cython.final
cdef class _Sequence:
    cdef long long last
    cdef str suffix

    cpdef reseed(self)

cdef _Sequence _sequence


@cython.final
cdef class _Count:
    cdef long long count
    cdef str prefix

    cpdef reseed(self)

cdef _Count _sessions


@cython.locals(ticks="long long", low="long long", middle="long long", high="long long")
cpdef str new_message_id(long long now_ns)

cpdef str new_session_id()
