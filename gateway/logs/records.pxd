# The C types of records.py, which is compiled with them.

cimport cython

from gateway.logs.encoding cimport Form, Record
from gateway.message cimport Message

cdef class Origin:
    cdef readonly object peer_address, protocol
    cdef dict _peer, _session
    cdef readonly bytes peer_json
    cdef readonly tuple optional_keys, behind

    cpdef layout(self, values)


@cython.locals(seconds="long long", fraction="long long")
cpdef str rfc3339(long long ns)


@cython.locals(seconds="long long", fraction="long long")
cpdef str _rfc3339_to_the_microsecond(long long microseconds)


@cython.locals(created="long long")
cpdef Record _accepted(Form form, Message message, Origin origin, queue, long long now_ns)


cpdef Record reception(Message message, Origin origin, queue, long long now_ns, unreadable=*)

cpdef list handed_over(Message message, Origin origin, queue, result, long long now_ns, egress_pool=*)


@cython.locals(created="long long")
cpdef Record _outcome(Message message, Origin origin, queue, result, long long now_ns, egress_pool, outcomes)
