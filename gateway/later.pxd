# The C types of later.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport step


@cython.freelist(32)
cdef class Later:
    cdef readonly bint done, failed
    cdef object _value, _error, _waiter

    cpdef settle(self, value)
    cpdef fail(self, error)
    cpdef result(self)
    cpdef then(self, waiter)
    cpdef cancel(self)
    cdef _give(self)


cpdef Later answered(value)


cdef class Steps(Later):
    cdef readonly Later waits_for
    cdef object _steps

    @cython.locals(later=Later)
    cpdef go_on(self)
    cdef _wait(self, Later later)


cdef _onward(steps, Later later)
cdef _next(steps, Later later)


@cython.locals(answer=Steps)
cpdef outcome_or_steps(steps)
cpdef Steps begun(steps)
