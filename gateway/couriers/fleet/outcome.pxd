# The C types of outcome.py, which is compiled with them.

import cython

from gateway.handover cimport Batch, RecipientOutcome
from gateway.smtp.client cimport ClientSession
from gateway.smtp.client_values cimport Transaction
from gateway.smtp.replies cimport Reply
from gateway.smtp.response cimport response_to

cpdef unsendable(Batch batch, ClientSession session)
cpdef list same_for_all(recipients, status, Reply reply)
cpdef Reply failure_reply(ClientSession session)


@cython.locals(answers=list)
cpdef list concluded(Transaction transaction)
cpdef list unknown(Transaction transaction)


cdef str _last_command(Transaction transaction)


@cython.locals(answers=list, place=Py_ssize_t, outcomes=list)
cdef list _with_verdict(Transaction transaction, tuple verdict)
cdef list _deferred(Transaction transaction)
cdef tuple _rcpt_refusal(recipient, tuple answer)
cdef tuple _verdict(tuple answer, str command)
cdef tuple _refusal(tuple answer, str command)
