# The C types of job.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport Content, is_ascii
from gateway.couriers.fleet.connection cimport MemberConnection
from gateway.handover cimport Batch, HandOver, RecipientOutcome
from gateway.later cimport Later
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.client cimport ClientSession
from gateway.smtp.exchange cimport Exchange
from gateway.smtp.replies cimport Reply

cdef class Dispatcher:
    cpdef report(self, Job job)
    cpdef declined(self, lane, Job job, Reply reply)
    cpdef recover(self, lane, Job job, MemberConnection connection)
    cpdef bint moves(self, lane, Job job) except? True
    cpdef Job oldest_waiting(self, lane)
    cpdef carried(self, Job job)
    cpdef serve_waiting(self)


@cython.freelist(16)
@cython.final
cdef class Job:
    cdef readonly Batch batch
    cdef readonly Dispatcher dispatcher
    cdef readonly Later later
    cdef public double deadline
    cdef readonly double started
    cdef readonly frozenset tried, avoided
    cdef public Py_ssize_t declined
    cdef readonly bint smtputf8, large
    cdef public MemberConnection connection
    cdef list _outcomes, _asked
    cdef Exchange _exchange
    cdef dict _relayed
    cdef HandOver _hand_over

    cpdef bint finished(self)

    @cython.locals(content=Content, extensions=dict)
    cpdef Reply lacks(self, ClientSession session)

    @cython.locals(batch=Batch)
    cpdef Exchange next_exchange(self, Py_ssize_t most_recipients)
    cpdef settle(self, list outcomes)
    cpdef settle_rest(self, Reply reply)
    cdef list _open(self)
    cdef _fill(self, list places, outcomes)
    cpdef tell(self)
    cpdef double conclude(self, str site) except -1
    cdef HandOver _made(self, str site)


@cython.locals(settled=RecipientOutcome)
cdef bint _complete(list outcomes)
cdef bint _is_final(RecipientOutcome settled)


@cython.locals(recipient=EnvelopeAddress)
cdef bint _needs_smtputf8(Batch batch) except -1
cdef bint _header_is_ascii(Content content) except -1
