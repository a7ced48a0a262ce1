# The C types of fleet.py, which is compiled with them.

import cython

from gateway._fastpath cimport CounterPage
from gateway.couriers.fleet cimport counting, outcome
from gateway.couriers.fleet.connection cimport Connection
from gateway.couriers.fleet.job cimport Job
from gateway.handover cimport Batch
from gateway.later cimport Later
from gateway.smtp.client_values cimport Transaction
from gateway.smtp.replies cimport Reply
from gateway.net.streams cimport Poller

cdef class Fleet:
    cdef readonly Poller poller
    cdef readonly object outbox, resolver, path
    cdef readonly CounterPage page
    cdef readonly str hostname
    cdef readonly Py_ssize_t jobs
    cdef readonly double last_used
    cdef readonly bint closing
    cdef bint _submitting
    cdef double _ends
    cdef list _members
    cdef Py_ssize_t _next
    cdef object _waiting
    cdef str _site

    @cython.locals(job=Job)
    cpdef Later submit(self, Batch batch, double deadline)
    cpdef bint sweep(self, double now) except? True

    cpdef report(self, Job job)
    cpdef Job next_waiting(self, Member member)

    @cython.locals(member=Member)
    cpdef serve_waiting(self)
    cpdef recover(self, Member member, Job job, Connection connection)

    @cython.locals(member=Member)
    cpdef _place(self, Job job, Reply reply)

    @cython.locals(first=Py_ssize_t, index=Py_ssize_t, member=Member, best=Member, members=list)
    cpdef Member _choose(self, Job job)
    cpdef _give_up(self, Job job, Reply reply)

cdef class Member:
    cdef readonly dict connections
    cdef readonly Py_ssize_t busy
    cdef readonly bint resting
    cdef double _rests_until
    cdef Fleet _fleet
    cdef object _host, _path
    cdef list _idle

    cpdef bint has_room(self)
    cpdef Py_ssize_t load(self)

    @cython.locals(connection=Connection)
    cpdef carry(self, Job job, bint afresh=*)
    cpdef rest(self, double now, Connection connection)
    cpdef transaction_concluded(self, Connection connection, Transaction transaction)
    cpdef bint _begin(self, Connection connection, Job job)
    cpdef _release(self, Connection connection)

    @cython.locals(fleet=Fleet, job=Job)
    cpdef _spare(self, Connection connection)
    cpdef _count_answered(self, Connection connection)
    cpdef _count_end(self, Connection connection, Job job)
