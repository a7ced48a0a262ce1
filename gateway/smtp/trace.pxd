# The C types of trace.py, which is compiled with them.

import cython

from gateway._fastpath cimport Content, count_fields

cdef Py_ssize_t _HEAD, _MOST_HEAD, _FOLD

cpdef str received_from(str client, str peer, str hostname, str local, str protocol, str tls)
cpdef str with_protocol(bint esmtp, bint tls, bint authenticated, bint smtputf8)
cpdef bytes received(str start, str message_id, str recipient, long long unix_time, object priority=*)
cpdef bytes supplemental(str name, str recipient, dict meta, tuple carried)


@cython.locals(head=bytes)
cpdef Py_ssize_t hops(Content content)

cdef class _Date:
    cdef long long unix_time
    cdef str text

cdef _Date _last

cpdef str rfc5322_date(long long unix_time)
