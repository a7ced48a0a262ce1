# The C types of outcome.py, which is compiled with them.

import cython

from gateway.handover cimport RecipientOutcome
from gateway.smtp.client cimport ClientSession
from gateway.smtp.exchange cimport Exchange
from gateway.smtp.replies cimport Reply
from gateway.smtp.response cimport response_to

cpdef list same_for_all(recipients, Reply reply)
cpdef Reply failure_reply(ClientSession session)


@cython.locals(mail=tuple, code=int)
cpdef list concluded(Exchange exchange)


@cython.locals(mail=tuple, rcpts=list)
cpdef list judged(Exchange exchange)
cpdef list unknown(Exchange exchange)


cdef str _last_command(Exchange exchange)
cdef list _mail_refused(Exchange exchange, tuple mail)


@cython.locals(rcpts=list, place=Py_ssize_t, outcomes=list, own=tuple, code=int)
cdef list _with_verdict(Exchange exchange, tuple verdict)
cdef list _deferred(Exchange exchange)
cdef tuple _rcpt_refusal(recipient, tuple answer)


@cython.locals(code=int)
cdef tuple _verdict(tuple answer, str command)
cdef tuple _refusal(tuple answer, str command)
