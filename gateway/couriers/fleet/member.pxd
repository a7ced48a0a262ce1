# The C types of member.py, which is compiled with them.

from gateway.couriers.fleet.connection cimport MemberConnection

cdef class Member:
    cdef public Py_ssize_t busy
    cdef public str address
    cdef readonly Py_ssize_t most_recipients
    cdef readonly bint away, resting, bdat_unknown
    cdef double _rests_until, _away_since
    cdef bint _greets

    cpdef failed(self, double now, MemberConnection connection)
    cpdef greeted(self, double now, MemberConnection connection)
    cpdef concluded(self, double now, MemberConnection connection)
    cpdef sweep(self, double now)
    cpdef learn_limit(self, Py_ssize_t recipients, MemberConnection connection)
    cpdef learn_bdat_unknown(self, MemberConnection connection)
    cdef _is_back(self, double now, MemberConnection connection)
