# The C types of transaction.py, which is compiled with them.

import cython

from gateway._fastpath cimport Content, CounterPage
from gateway.handover cimport Batch, HandOver, RecipientOutcome
from gateway.delivery.journal cimport Accepted, log_hand_overs, log_messages
from gateway.mail.message cimport Message
from gateway.delivery.routing cimport Delivery, deliveries, is_discarded, queue_names, split
from gateway.delivery.verdict cimport Evidence, Verdict, verdict
from gateway.delivery.services cimport Services
from gateway.later cimport Later
from gateway.logs cimport identity, records
from gateway.policy.conn_meta cimport ConnMeta
from gateway.policy.engine cimport Policy
from gateway.smtp cimport replies, trace
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.events cimport MessageReceived
from gateway.smtp.terms cimport Terms

cdef class SessionFacts:
    cdef readonly Terms terms
    cdef readonly ConnMeta conn
    cdef readonly records.Origin origin
    cdef readonly str received_start


@cython.final
cdef class Transaction:
    cdef Services _services
    cdef Policy _policy
    cdef CounterPage _page
    cdef SessionFacts _facts
    cdef Terms _terms
    cdef MessageReceived _event
    cdef readonly object unreadable
    cdef double _began
    cdef long long _now_ns
    cdef list _decisions, _accepted, _deliveries, _outcomes, _not_taken
    cdef object _spool
    cdef Py_ssize_t _promised, _discarded, _reported, _handed_over

    cpdef double seconds(self)

    @cython.locals(content=Content)
    cdef _begin(self)

    @cython.locals(event=MessageReceived)
    cdef Message _make_message(self, list recipients, dict meta)

    @cython.locals(message=Message)
    cdef Message _message_to(self, list recipients, dict meta, Message whole, Py_ssize_t groups)
    cdef list _named(self, list recipients, Message whole)

    @cython.locals(relayed=list)
    cdef list _settle(self, Message message)
    cdef bytes _received(self, str message_id, recipient)
    cdef _forget_recipient(self, Message message, list before)
    cdef tuple _fates(self, Message message)
    cdef _add_supplemental_header(self, Message message)

    @cython.locals(message=Message, batch=Batch)
    cdef Later _hand_over(self, Delivery delivery)

    @cython.locals(outcome=RecipientOutcome)
    cdef bint _goes_on(self, Delivery delivery, HandOver result) except -1
    cdef Verdict _verdict(self, Evidence evidence)
    cdef Evidence _recorded(self, bint told)

    @cython.locals(accepted=Accepted, outcome=RecipientOutcome, refused=Py_ssize_t)
    cdef _taken(self)
    cdef _end(self, Verdict decided, Evidence evidence)
    cdef _log_refused(self, Verdict decided)


@cython.locals(recipient=EnvelopeAddress)
cdef _only(list recipients)
