# The C types of transaction.py, which is compiled with them.

import cython

from gateway._fastpath cimport Content, CounterPage
from gateway.logs cimport identity, records
from gateway.delivery.message cimport Message
from gateway.policy.conn_meta cimport ConnMeta
from gateway.policy.engine cimport Policy
from gateway.handover cimport Batch, HandOver, RecipientOutcome
from gateway.inbound.services cimport Services
from gateway.later cimport Later
from gateway.smtp cimport replies, trace
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.events cimport MessageReceived

cdef class SessionFacts:
    cdef readonly ConnMeta conn
    cdef readonly records.Origin origin
    cdef readonly str received_start
    cdef readonly object trace_headers, batch_handling
    cdef readonly bint received_header, supplemental_header, fix_line_endings
    cdef readonly double timeout

cdef class Delivery:
    cdef readonly Message message
    cdef readonly str queue_name
    cdef readonly list recipients
    cdef readonly object destination
    cdef public HandOver result

cdef class Transaction:
    cdef Services _services
    cdef Policy _policy
    cdef CounterPage _page
    cdef SessionFacts _facts
    cdef MessageReceived _event
    cdef object _done
    cdef Later _under_way
    cdef double _began
    cdef long long _now_ns
    cdef list _decisions, _messages, _waiting, _handed_over, _outcomes
    cdef dict _reports
    cdef bint _discarded, _dropped_report, _report_is_logged
    cdef readonly object unreadable

    @cython.locals(content=Content, message=Message)
    cpdef start(self)
    cpdef double seconds(self)
    cdef list _split(self)

    @cython.locals(facts=SessionFacts, message=Message, first=EnvelopeAddress)
    cdef Message _make_message(self, list recipients)
    cdef _settle(self, Message message)
    cdef list _relayed_recipients(self, Message message)
    cdef _add_supplemental_header(self, Message message)
    cdef list _destinations(self, Message message, str queue_name, list recipients)
    cdef Delivery _destination(self, Message message, str queue_name, list recipients)

    @cython.locals(delivery=Delivery, message=Message, batch=Batch, later=Later)
    cdef _hand_over_next(self)

    @cython.locals(delivery=Delivery, result=HandOver)
    cpdef _on_result(self)

    @cython.locals(outcomes=list)
    cdef _conclude(self)

    @cython.locals(message=Message, refused=Py_ssize_t)
    cdef _accept(self)

    @cython.locals(outcomes=list)
    cdef _refusal(self)
    cdef Py_ssize_t _disposition(self)
    cpdef _log(self)

    @cython.locals(services=Services, message=Message, now_ns="long long")
    cdef _log_messages(self)

    @cython.locals(services=Services, delivery=Delivery, message=Message, result=HandOver, now_ns="long long")
    cdef _log_hand_overs(self, bint refused)


@cython.locals(outcome=RecipientOutcome, count=Py_ssize_t)
cdef Py_ssize_t _count(list outcomes, status) except -1
cdef bint _failed_for_now(list outcomes) except -1
