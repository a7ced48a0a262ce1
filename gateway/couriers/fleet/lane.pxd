# The C types of lane.py, which is compiled with them.

import cython

from gateway.couriers.fleet cimport counting, outcome
from gateway.couriers.fleet.connection cimport MemberConnection, Owner
from gateway.couriers.fleet.job cimport Dispatcher, Job
from gateway.couriers.fleet.member cimport Member
from gateway.couriers.fleet.wiring cimport Wiring
from gateway.smtp.exchange cimport Exchange


cdef class Lane(Owner):
    cdef readonly Member member
    cdef readonly list connections, dispatchers
    cdef Wiring _wiring
    cdef object _host, _path
    cdef Py_ssize_t _limit, _most_deliveries, _most_recipients, _large, _most_large
    cdef list _idle
    cdef set _probes
    cdef bint _claimed, _introduces, _bound
    cdef str _told

    cpdef bint admits(self, Job job)
    cpdef bint has_room(self, Job job)
    cpdef double load(self, Job job)
    cpdef bint claim(self) except? True
    cpdef bint turned_away(self, MemberConnection connection) except? True

    @cython.locals(connection=MemberConnection)
    cpdef carry(self, Job job, bint afresh=*)

    @cython.locals(job=Job)
    cpdef exchange_concluded(self, MemberConnection connection, Exchange exchange)
    cpdef connection_opened(self, MemberConnection connection)

    @cython.locals(job=Job)
    cpdef connection_ready(self, MemberConnection connection)

    @cython.locals(job=Job)
    cpdef connection_ended(self, MemberConnection connection)
    cdef bint _begin(self, MemberConnection connection, Job job)
    cpdef probe(self)
    cdef _open(self, Job job, route)
    cdef _take_for_probe(self, MemberConnection connection)
    cdef _let_go(self, MemberConnection connection, Job job, double now)

    @cython.locals(dispatcher=Dispatcher)
    cdef _serve(self)
    cdef bint _may_go_on(self, MemberConnection connection, Job job) except? True
    cdef _introduce(self, MemberConnection connection, Job job)
    cdef _take_on(self, Job job)

    @cython.locals(connection=MemberConnection)
    cdef bint _has_for(self, Job job) except? True

    @cython.locals(job=Job)
    cdef _release(self, MemberConnection connection)

    @cython.locals(job=Job)
    cdef _spare(self, MemberConnection connection, bint keep=*)

    @cython.locals(dispatcher=Dispatcher, job=Job, oldest=Job)
    cdef Job _oldest_waiting(self)
    cdef _count_answered(self, MemberConnection connection)
    cdef _count_end(self, MemberConnection connection, Job job)
