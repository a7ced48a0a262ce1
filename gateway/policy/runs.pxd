# The C types of runs.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport CounterPage
from gateway.later cimport Later
from gateway.policy.decision_cache cimport Evaluation


@cython.final
cdef class Runs:
    cdef readonly object lua, handlers_of, clock, background
    cdef readonly CounterPage page
    cdef public Run running
    cdef public bint loading, traced
    cdef public object limits, replace_lua
    cdef list _ready

    cpdef soon(self, call)
    cpdef go_on(self)

cdef class Run(Later):
    cdef readonly str event
    cdef public Evaluation evaluation
    cdef readonly bint condemned
    cdef public bint takes_all, publishes
    cdef public Later waits_for
    cdef readonly object lua
    cdef Runs _runs
    cdef object _finish, _handle, _handlers, _timer
    cdef tuple _arguments, _coroutine
    cdef Py_ssize_t _called
    cdef double _began, _waited, _suspended_at
    cdef bint _is_cancelled

    cpdef begin(self, handlers, tuple arguments)
    cpdef _call_next(self)
    cdef _enter(self, tuple arguments)
    cdef _conclude(self, result)
    cdef _close(self, value=*, error=*)
