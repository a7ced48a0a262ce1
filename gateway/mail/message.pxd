# The C types of message.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport Content, ContentStore
from gateway.smtp.address cimport EnvelopeAddress


@cython.final
cdef class Message:
    cdef public str id
    cdef public EnvelopeAddress sender
    cdef public object attempts
    cdef public dict meta
    cdef public double received_at
    cdef public list recipients
    cdef public Py_ssize_t size
    cdef readonly Content content
    cdef ContentStore _store
    cdef object _data, _fields
    cdef list _prepended

    cpdef prepend(self, bytes header)
    cpdef Content wire(self)
    cpdef str queue_name(self, EnvelopeAddress recipient=*)
    cdef str _name(self, str key)
