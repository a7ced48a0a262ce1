# The C types of trace.py, which is compiled with them.

cpdef bytes received(str start, str message_id, str recipient, unix_time)
cpdef bytes supplemental(str name, list recipients, dict meta, tuple carried)
cpdef Py_ssize_t hops(list chunks)
