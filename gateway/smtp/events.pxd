# The C types of events.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport Content
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.commands cimport MailCommand
from gateway.smtp.replies cimport Reply

cdef class GreetingRequested:
    pass

cdef class EhloRequested:
    cdef readonly str name
    cdef public tuple extensions

cdef class AuthRequested:
    cdef readonly object authorization, authentication, password

cdef class TlsRequested:
    pass

cdef class ReplyMade:
    cdef readonly int verb
    cdef readonly Reply reply
    cdef readonly bytes argument
    cdef readonly object kept


@cython.freelist(32)
cdef class MessageReceived:
    cdef readonly MailCommand mail
    cdef readonly list recipients
    cdef readonly Content content

cdef class Observer:
    cpdef replied(self, int verb, Reply reply, bytes argument)
    cpdef held(self, int verb, Reply reply, bytes argument)
    cpdef released(self, int verb, Reply reply, bytes argument, kept)
