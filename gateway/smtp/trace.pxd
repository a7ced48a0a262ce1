# The C types of trace.py, which is compiled with them.

cpdef str received_from(str client, str peer, str hostname, str local, str protocol, str tls)
cpdef str with_protocol(bint esmtp, bint tls, bint authenticated, bint smtputf8)
cpdef bytes received(str start, str message_id, str recipient, unix_time)
cpdef bytes supplemental(str name, list recipients, dict meta, tuple carried)
cpdef Py_ssize_t hops(list chunks)
