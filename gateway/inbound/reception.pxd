# The C types of reception.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport CounterPage
from gateway.decision cimport Decision, decide, sender_matters
from gateway.later cimport Later, Steps, outcome_or_steps
from gateway.net.endpoints cimport Endpoints
from gateway.logs.identity cimport new_session_id
from gateway.logs.records cimport Origin
from gateway.policy.conn_meta cimport ConnMeta
from gateway.policy.decision_cache cimport Known
from gateway.policy.engine cimport Policy
from gateway.inbound.allowance cimport Allowance
from gateway.inbound.facts cimport limited_as_relay_host, known_at_first, origin, received_start
from gateway.inbound.refusals cimport Refusals, RefusedCommand
from gateway.delivery.services cimport Services
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.commands cimport MailCommand, RcptCommand
from gateway.smtp.events cimport AuthRequested, EhloRequested, MessageReceived, Observer
from gateway.smtp.replies cimport Reply
from gateway.smtp.session cimport ServerSession
from gateway.smtp.terms cimport MessageCount, Terms
from gateway.delivery.transaction cimport SessionFacts, Transaction

cdef list _COMMAND_SLOTS
cdef int NO_COMMAND
cdef dict _DECIDED_BY_LUA, _DECIDED_FROM_CACHE

cdef class Reception(Observer):
    cdef readonly ServerSession session  # None once the client is gone
    cdef readonly Allowance allowance
    cdef Services _services
    cdef Refusals _refusals
    cdef Terms _terms
    cdef object _table
    cdef MessageCount _count
    cdef object _resume
    cdef Policy _policy
    cdef dict _accepted_with
    cdef Endpoints _endpoints
    cdef ConnMeta _conn
    cdef SessionFacts _facts
    cdef str _session_id
    cdef CounterPage _page
    cdef list _decisions
    cdef object _tls
    cdef bint _peer_is_relay_host, _asks_about_recipients, _is_rated
    cdef Steps _steps
    cdef MessageReceived _message
    cdef Transaction _transaction
    cdef dict _why

    cpdef hold_to(self, Allowance allowance)
    cpdef start(self)
    cdef _greet(self, Reply greeting)
    cpdef lost(self)
    cpdef receive(self, bytes data)
    cpdef bytes data_to_send(self)
    cpdef bint is_asked(self)
    cpdef params(self)
    cpdef str peer_address(self)
    cpdef bint advance(self, Py_ssize_t most) except? False
    cdef _answer(self, event)
    cdef _dispatch(self, event)

    cdef _walk(self, steps)

    @cython.locals(walk=Steps)
    cpdef _go_on(self)
    cdef _arrive(self, Reply reply)
    cdef _ehlo(self, EhloRequested event)
    cdef _begin(self, EhloRequested event)
    cdef _mail(self, MailCommand event)

    @cython.locals(decision=Decision, recipient=Later, sender=Later)
    cdef _rcpt(self, RcptCommand event)
    cdef Later _listener_domain(self, EnvelopeAddress address)
    cdef Later _senders_domain(self)
    cdef Decision _decide(self, recipient, sender, dict slots)
    cdef bint _refuses(self, Decision decision) except -1
    cdef _take(self, Decision decision)
    cdef _message_received(self, MessageReceived event)
    cdef _failed(self, error)
    cdef _reply(self, Reply reply)
    cdef SessionFacts _session_facts(self, MessageReceived event)
    cdef SessionFacts _made_facts(self, bint smtputf8)
    cdef Origin _known_origin(self)
    cpdef replied(self, int verb, Reply reply, bytes argument)
    cpdef held(self, int verb, Reply reply, bytes argument)
    cpdef released(self, int verb, Reply reply, bytes argument, kept)
    cdef RefusedCommand _refused(self, int verb, bytes argument)
