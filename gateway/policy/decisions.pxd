# The C types of decisions.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport CounterPage
from gateway.later cimport Later
from gateway.policy.conn_meta cimport ConnMeta
from gateway.policy.decision_cache cimport DecisionCache, Known
from gateway.policy.domain_table cimport DomainTable


@cython.final
cdef class Decisions:
    cdef object _evaluate, _clock
    cdef DomainTable _table
    cdef dict _flights
    cdef bint _shares
    cdef CounterPage _page
    cdef DecisionCache _cache
    cdef Py_ssize_t _verify_every, _until_verification, _evictions

    cpdef Later listener_domain(self, str domain, str listener, ConnMeta conn)
    cdef Later _asked(self, str domain, str listener, ConnMeta conn)
    cdef Later _verified(self, Known found, str domain, str listener, ConnMeta conn)
