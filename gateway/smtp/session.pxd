# The C types of session.py, which is compiled with them: the fields of its classes and what is called inside.

from gateway._fastpath cimport Framer
from gateway.smtp.commands cimport MailCommand
from gateway.smtp.replies cimport Reply

cdef class ServerSession:
    cdef object _params, _observer, _argument, _verb
    cdef Framer _framer
    cdef bint _offer_tls, _offer_auth, _rcpt_refused
    cdef Py_ssize_t _max_line, _messages, _max_messages, _max_recipients, _max_size
    cdef list _out
    cdef readonly object awaiting
    cdef public int state
    cdef public object ehlo_name
    cdef public bint esmtp, tls, authenticated, quit
    cdef public MailCommand mail
    cdef public list recipients

    cpdef receive_data(self, data)
    cpdef next_event(self)
    cpdef reply(self, Reply reply)
    cpdef bytes data_to_send(self)
    cpdef _say(self, Reply reply)
    cpdef _reset(self, int state)
    cpdef _carry_out(self, event)
    cpdef _read_command(self)
    cpdef _mail(self, argument)
    cpdef _rcpt(self, argument)
    cpdef _data(self, argument)
    cpdef _read_body(self)
    cpdef _body_refusal(self, body)
