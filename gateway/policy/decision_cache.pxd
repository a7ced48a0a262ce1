# The C types of decision_cache.py, which is compiled with them.

import cython

from gateway.later cimport Later

cdef double _NEVER

cpdef frozen(value)


@cython.final
cdef class RecentlyUsed:
    cdef readonly dict young
    cdef readonly Py_ssize_t evictions
    cdef dict _old
    cdef Py_ssize_t _half

    cpdef get(self, key)
    cpdef put(self, key, value)
    cpdef replace(self, key, value)

cdef class _Read:
    cdef readonly str key
    cdef public double expires

cdef class Known(Later):
    cdef readonly double expires


@cython.final
cdef class DecisionCache:
    cdef RecentlyUsed _nodes
    cdef object _clock
    cdef readonly tuple missed

    @cython.locals(path=tuple, known=Known, inner=_Read)
    cpdef lookup(self, tuple arguments, dict values)

cdef class Evaluation:
    cdef object _connection
    cdef readonly dict reads
    cdef public bint stable
    cdef public double expires
