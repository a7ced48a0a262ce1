# The C types of message.py, which is compiled with them.

from gateway.smtp.address cimport EnvelopeAddress

cdef class Message:
    cdef public str id
    cdef public EnvelopeAddress sender
    cdef public object attempts
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
    cpdef str queue_name(self, EnvelopeAddress recipient=*)
    cdef str _name(self, str key)
