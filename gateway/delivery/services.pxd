# The C types of services.py, which is compiled with them.

from gateway._fastpath cimport ContentStore, CounterPage
from gateway.policy.engine cimport Policy

cdef class Services:
    cdef readonly Policy policy
    cdef readonly object couriers, logs, room, now_ns, monotonic, afterwards
    cdef public object tracer, spool, quotas
    cdef public bint traced
    cdef readonly CounterPage page
    cdef readonly ContentStore contents
