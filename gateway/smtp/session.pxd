# The C types of session.py, which is compiled with them: the fields of its classes and what is called inside.

cimport cython

from gateway._fastpath cimport Framer
from gateway.smtp.commands cimport MailCommand, RcptCommand, no_argument, parse_mail, parse_rcpt
from gateway.smtp.events cimport EhloRequested, MessageReceived, Observer
from gateway.smtp.replies cimport Reply
from gateway.smtp.terms cimport Terms

cdef int BDAT, EHLO, HELO, MAIL, RCPT, DATA, QUIT
cdef int _CONNECTED, _READY, _RCPT, _CONTENT, _AUTH, _CLOSED, _CHUNKS
cdef int _STEPS, _NOWHERE, _RCPT_REFUSED, _END, END_OF_DATA
cdef bytes _NEXT
cdef list _REFUSALS

cdef class ServerSession:
    cdef Terms _terms
    cdef Observer _observer
    cdef bytes _argument
    cdef int _verb
    cdef Framer _framer
    cdef Py_ssize_t _messages, _allowance
    cdef list _out
    cdef readonly object awaiting
    cdef public int state
    cdef readonly bint closed
    cdef readonly object limits
    cdef readonly Py_ssize_t commands
    cdef public double penalty
    cdef Py_ssize_t _idle, _most_idle
    cdef object _conduct, _chunk
    cdef public object ehlo_name
    cdef public bint esmtp, tls, authenticated, quit, may_introduce
    cdef bint _introduced
    cdef int _offered
    cdef Py_ssize_t _max_size, _least_time
    cdef readonly object foreign
    cdef object _exchange
    cdef public tuple identities
    cdef public MailCommand mail
    cdef public list recipients

    cpdef receive_data(self, data)
    cpdef allow(self, Py_ssize_t most)
    cpdef next_event(self)
    cpdef reply(self, Reply reply)
    cpdef bytes data_to_send(self)
    cpdef hold(self)
    cpdef bint is_over(self)
    cpdef give_up(self)
    cpdef bint is_receiving(self)
    cpdef bint needs_room(self)
    cpdef bint is_bulky(self)
    cpdef limit(self, limits)
    cpdef greet(self, Reply reply)
    cpdef bint is_behind(self)
    cpdef bint is_idle(self)
    cpdef Py_ssize_t buffered(self)
    cdef _say(self, Reply reply)
    cdef _done(self, Reply reply)
    cdef Reply _weighed(self, Reply reply)
    cdef _count_idle(self)

    @cython.locals(state=int)
    cdef _move(self, int step)

    @cython.locals(wanted=RcptCommand)
    cdef _carry_out(self, event)
    cdef _begin(self, EhloRequested event)

    @cython.locals(first=int)
    cdef _read_first(self)

    @cython.locals(verb=int, argument=bytes, refusal=Reply)
    cdef _read_command(self)
    cdef _ehlo(self, bytes argument)

    @cython.locals(command=MailCommand)
    cdef _mail(self, bytes argument)
    cdef _rcpt(self, bytes argument)
    cdef _data(self, bytes argument)
    cdef _quit(self, bytes argument)

    cdef _read_content(self)
