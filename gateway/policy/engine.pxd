# The C types of engine.py, which is compiled with them.

from gateway.later cimport Later
from gateway.policy.configurations cimport Configurations
from gateway.policy.conn_meta cimport ConnMeta
from gateway.policy.decision_cache cimport Evaluation
from gateway.policy.decisions cimport Decisions
from gateway.policy.runs cimport Run

cdef class Policy:
    cdef readonly object source, epoch, config
    cdef readonly frozenset handles
    cdef readonly bint is_asked_at_first, rewrites_replies, shapes_transactions
    cdef object _handlers, _blocks
    cdef Configurations _configurations
    cdef Decisions _decisions

    cpdef Later listener_domain(self, str domain, str listener, ConnMeta conn)
    cpdef Later destination(self, str queue_name)
    cpdef _ask(self, str event, tuple arguments, finish=*, handle=*)
    cpdef Run _called(
        self, str event, handlers, tuple arguments, finish, Evaluation evaluation, handle=*, bint takes_all=*
    )
