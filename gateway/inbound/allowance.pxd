# The C types of allowance.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport CounterPage
from gateway.delivery.services cimport Services
from gateway.net.endpoints cimport Endpoints
from gateway.quotas cimport Quotas
from gateway.smtp.replies cimport Reply
from gateway.smtp.terms cimport Terms

cpdef str network_of(Endpoints endpoints, limits)

cdef class _Account:
    cdef Quotas _quotas
    cdef readonly object limits
    cdef readonly str who
    cdef str _scope
    cdef tuple _connections
    cdef int _held

    cpdef bint may(self, str limit) except -1
    cdef bint has_left(self, str limit) except -1
    cdef charge(self, str limit, double amount)
    cdef bint may_record(self) except -1
    cdef connect(self, bint is_new)
    cdef disconnect(self)
    cdef _rate(self, str limit)

cpdef Allowance allowance_of(Services services, Terms terms, Endpoints endpoints)

cdef class Allowance:
    cdef Quotas _quotas
    cdef CounterPage _page
    cdef Terms _terms
    cdef _Account _peer
    cdef tuple _accounts
    cdef readonly str identity
    cdef readonly bint counts_messages

    cpdef Reply connect(self, bint is_new=*)

    @cython.locals(account=_Account)
    cpdef disconnect(self)

    @cython.locals(account=_Account, peer=_Account)
    cpdef Reply asked(self, event)

    @cython.locals(peer=_Account)
    cpdef bint refused(self, int verb, Reply reply) except -1

    @cython.locals(account=_Account)
    cdef Reply _sender(self)

    @cython.locals(account=_Account)
    cdef bint _all(self, str limit) except -1

    @cython.locals(account=_Account)
    cpdef Reply logged_in(self, str identity, bint is_new=*)
