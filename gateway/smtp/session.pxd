# The C types of session.py, which is compiled with them: the fields of its classes and what is called inside.

cimport cython

from gateway._fastpath cimport Content, Framer
from gateway.smtp.commands cimport MailCommand
from gateway.smtp.events cimport EhloRequested, RcptRequested
from gateway.smtp.replies cimport Reply
from gateway.smtp.terms cimport Terms

cdef int EHLO, MAIL, RCPT, DATA, QUIT
cdef int _CONNECTED, _READY, _MAIL, _RCPT, _BODY, _AUTH
cdef list _ALLOWS

cdef class Observer:
    cpdef replied(self, int verb, Reply reply, bytes argument)

cdef class ServerSession:
    cdef Terms _terms
    cdef Observer _observer
    cdef bytes _argument
    cdef int _verb
    cdef Framer _framer
    cdef bint _rcpt_refused
    cdef Py_ssize_t _messages, _allowance
    cdef list _out
    cdef readonly object awaiting
    cdef public int state
    cdef readonly bint closed
    cdef public object ehlo_name
    cdef public bint esmtp, tls, authenticated, quit
    cdef public MailCommand mail
    cdef public list recipients

    cpdef receive_data(self, data)
    cpdef allow(self, Py_ssize_t most)
    cpdef next_event(self)
    cpdef reply(self, Reply reply)
    cpdef bytes data_to_send(self)
    cpdef greet(self, Reply reply)
    cpdef bint is_behind(self)
    cpdef bint is_idle(self)
    cpdef Py_ssize_t buffered(self)
    cpdef _say(self, Reply reply)
    cpdef _reset(self, int state)
    cpdef _carry_out(self, event)
    cpdef _begin(self, EhloRequested event)
    cpdef _add_recipient(self, RcptRequested event)

    @cython.locals(verb=int, argument=bytes)
    cpdef _read_command(self)
    cpdef _ehlo(self, bytes argument)

    @cython.locals(command=MailCommand)
    cpdef _mail(self, bytes argument)
    cpdef _rcpt(self, bytes argument)
    cpdef _data(self, bytes argument)
    cpdef _quit(self, bytes argument)

    @cython.locals(content=Content)
    cpdef _read_content(self)
    cpdef _content_refusal(self, Content content)
