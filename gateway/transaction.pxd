# The C types of transaction.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.message cimport Message
from gateway.services cimport Services
from gateway.smtp.events cimport MessageReceived

cdef class SessionFacts:
    cdef readonly object params, conn, origin, received_start

cdef class Transaction:
    cdef Services _services
    cdef object _policy, _decisions, _done, _now_ns
    cdef CounterPage _page
    cdef SessionFacts _facts
    cdef MessageReceived _event
    cdef double _began
    cdef list _messages, _waiting, _results
    cdef dict _reports
    cdef bint _discarded, _dropped_report, _report_is_logged
    cdef readonly object unreadable

    cpdef start(self)
    cpdef list _split(self)
    cpdef Message _make_message(self, list recipients)
    cpdef _settle(self, Message message)
    cpdef list _relayed_recipients(self, Message message)
    cpdef _add_supplemental_header(self, Message message)
    cpdef list _destinations(self, Message message, queue_name, list recipients)
    cpdef _destination(self, Message message, queue_name, list recipients)
    cpdef _hand_over_next(self)
    cpdef _handed_over(self, delivery, result)
    cpdef _conclude(self)
    cpdef _accept(self, outcomes)
    cpdef _refusal(self, outcomes)
    cpdef _disposition(self)
    cpdef _log(self)
    cpdef _log_messages(self)
    cpdef _log_hand_overs(self, bint refused)
