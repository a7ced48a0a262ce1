# The C types of trace.py, which is compiled with them.

cpdef str received_from(str client, str peer, str hostname, str local, str protocol, str tls)
cpdef str with_protocol(bint esmtp, bint tls, bint authenticated, bint smtputf8)
cpdef bytes received(str start, str message_id, str recipient, long long unix_time)
cpdef bytes supplemental(str name, list recipients, dict meta, tuple carried)
cpdef Py_ssize_t hops(list chunks)

cdef class _Date:
    cdef long long unix_time
    cdef str text

cdef _Date _last

cpdef str rfc5322_date(long long unix_time)
