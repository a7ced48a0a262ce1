# The C types of verdict.py, which is compiled with them.

import cython

from gateway.handover cimport RecipientOutcome

cdef class Evidence:
    cdef readonly bint reports, bounces, told
    cdef public object on_disk

cdef class Verdict:
    cdef readonly object next, reply


@cython.locals(refused=Py_ssize_t, deferred=RecipientOutcome, outcome=RecipientOutcome)
cpdef Verdict verdict(
    Py_ssize_t promised, list outcomes, Py_ssize_t discarded, Py_ssize_t reported, Evidence evidence=*
)
cdef Verdict _recorded(Py_ssize_t refused, Py_ssize_t reported, Evidence evidence)
cpdef as_reply(RecipientOutcome outcome)
