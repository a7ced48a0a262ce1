# The C types of records.py, which is compiled with them.

cimport cython

from gateway.logs.encoding cimport Form, Record
from gateway.message cimport Message
from gateway.relay.handover cimport HandOver, RecipientOutcome
from gateway.smtp.response cimport Response

cdef class Origin:
    cdef readonly object peer_address, protocol
    cdef dict _peer, _session
    cdef readonly dict without_tls
    cdef readonly bytes peer_json
    cdef readonly tuple optional_keys, behind

    cpdef layout(self, values)


cpdef _recipient(recipients)

cpdef _json_of_list(value)

cpdef str _on_one_line(str text)

cpdef str _type_of(status)

cpdef list _same_results(list outcomes)

cpdef dict _session(tls_cipher, tls_protocol_version, subject, session_id)


cdef class _Second:
    cdef public long long seconds
    cdef public str text

cdef _Second _last

cdef str _date_and_time(long long seconds)


@cython.locals(seconds="long long", fraction="long long")
cpdef str rfc3339(long long ns)


@cython.locals(seconds="long long", fraction="long long")
cpdef str _rfc3339_to_the_microsecond(long long microseconds)


@cython.locals(created="long long")
cpdef Record _accepted(Form form, Message message, Origin origin, queue, long long now_ns)


cpdef Record reception(Message message, Origin origin, queue, long long now_ns, unreadable=*)


@cython.locals(created="long long", attempt_ns="long long", optional=dict)
cpdef Record out_of_band(Message message, Origin origin, queue, bounce, long long now_ns)

cpdef list handed_over(Message message, Origin origin, queue, HandOver result, long long now_ns, egress_pool=*)


@cython.locals(created="long long", first=RecipientOutcome, answer=Response, optional=dict)
cpdef Record _outcome(
    Message message, Origin origin, queue, HandOver result, long long now_ns, egress_pool, list outcomes
)
