# The C types of engine.py, which is compiled with them.

from gateway._fastpath cimport CounterPage
from gateway.policy.decision_cache cimport DecisionCache, RecentlyUsed

cdef class Policy:
    cdef readonly object source, epoch, config
    cdef readonly frozenset handles
    cdef readonly str answered_from
    cdef object _handlers, _clock
    cdef CounterPage _page
    cdef DecisionCache _decisions
    cdef RecentlyUsed _destinations, _queues, _paths
    cdef Py_ssize_t _verify_every, _until_verification, _evictions

    cpdef listener_domain(self, str domain, str listener, conn)
    cpdef destination(self, str queue_name)
