# The C types of domain_table.py, which is compiled with them.

import cython

from gateway._fastpath cimport PackedNames
from gateway.policy.conn_meta cimport ConnMeta
from gateway.policy.decision_cache cimport Evaluation, Known

cdef Known _NOTHING

cdef class Entry:
    cdef readonly Known known
    cdef readonly dict options
    cdef readonly frozenset users
    cdef public object made

cdef class _Section:
    cdef PackedNames _exact, _below

    @cython.locals(found=Py_ssize_t)
    cdef Py_ssize_t find(self, str name)


@cython.final
cdef class DomainTable:
    cdef readonly tuple files
    cdef dict _sections, _entries
    cdef object _texts
    cdef _Section _everywhere
    cdef bint _some_ports

    @cython.locals(entry=Entry)
    cpdef Known answer(self, str domain, str listener, ConnMeta conn)

    @cython.locals(number=Py_ssize_t, entry=Entry)
    cpdef Entry entry(self, str domain, str listener, ConnMeta conn, Evaluation evaluation)

    @cython.locals(number=Py_ssize_t, section=_Section)
    cdef Py_ssize_t _number(self, str domain, str listener)
    cdef Entry _made(self, Py_ssize_t number)
