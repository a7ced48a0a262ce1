# The C types of configurations.py, which is compiled with them.

cimport cython

from gateway.later cimport Later
from gateway.policy.decision_cache cimport RecentlyUsed


@cython.final
cdef class Configurations:
    cdef object _ask_queue, _ask_path, _clock
    cdef Later _fleet
    cdef RecentlyUsed _destinations, _queues, _paths

    cpdef Later destination(self, str queue_name)
    cdef Later _refreshed(self, RecentlyUsed cache, tuple names, ask)
