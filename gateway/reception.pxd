# The C types of reception.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.endpoints cimport Endpoints
from gateway.policy.conn_meta cimport ConnMeta
from gateway.smtp.events cimport AuthRequested, EhloRequested, MailRequested, MessageReceived, RcptRequested
from gateway.smtp.replies cimport Reply
from gateway.smtp.session cimport ServerSession
from gateway.transaction cimport SessionFacts, Transaction

cdef class Reception:
    cdef readonly ServerSession session  # None once the client is gone
    cdef object _services, _policy, _params, _resume, _before_ehlo
    cdef Endpoints _endpoints
    cdef ConnMeta _conn
    cdef SessionFacts _facts
    cdef str _session_id
    cdef CounterPage _page
    cdef list _decisions
    cdef object _tls
    cdef bint _peer_is_relay_host, _advancing, _asked_lua
    cdef MessageReceived _message
    cdef Transaction _transaction

    cpdef start(self)
    cpdef advance(self)
    cpdef _answer(self, event)
    cpdef _dispatch(self, event)
    cpdef _ehlo(self, EhloRequested event)
    cpdef _mail(self, MailRequested event)
    cpdef _rcpt(self, RcptRequested event)
    cpdef _decide(self, recipient)
    cpdef _lookup(self, domain)
    cpdef _message_received(self, MessageReceived event)
    cpdef _settled(self, Reply reply)
    cpdef _reply(self, Reply reply)
    cpdef SessionFacts _session_facts(self, MessageReceived event)
    cpdef _origin(self)
    cpdef str _received_start(self, bint smtputf8)
    cpdef _replied(self, verb, Reply reply, argument)
