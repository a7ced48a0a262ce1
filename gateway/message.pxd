# The C types of message.py, which is compiled with them.

cdef class Message:
    cdef public str id
    cdef public object sender, attempts
    cdef public dict meta
    cdef public double received_at
    cdef public list recipients
    cdef public Py_ssize_t size
    cdef public bint eight_bit
    cdef object _content, _fields
    cdef list _chunks, _prepended
    cdef bint _stuffed

    cpdef prepend(self, bytes header)
    cpdef list wire_chunks(self)
    cpdef str queue_name(self, recipient=*)
    cdef str _name(self, str key)
