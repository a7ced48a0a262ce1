# The C types of fleet.py, which is compiled with them.

import cython

from gateway.couriers.fleet cimport choice, outcome
from gateway.couriers.fleet.connection cimport MemberConnection
from gateway.couriers.fleet.job cimport Dispatcher, Job
from gateway.couriers.fleet.lane cimport Lane
from gateway.couriers.fleet.wiring cimport Wiring
from gateway.handover cimport Batch
from gateway.later cimport Later
from gateway.smtp.exchange cimport Exchange
from gateway.smtp.replies cimport Reply

cdef class Fleet(Dispatcher):
    cdef readonly list lanes
    cdef readonly Py_ssize_t jobs
    cdef readonly double last_used
    cdef Wiring _wiring
    cdef Py_ssize_t _next
    cdef double _patience
    cdef object _waiting, _preference
    cdef dict _since
    cdef str _site

    @cython.locals(job=Job)
    cpdef Later submit(self, Batch batch, double deadline)
    cpdef sweep(self, double now)
    cdef _go_on(self, Lane lane, Job job)

    @cython.locals(lane=Lane)
    cdef _place(self, Job job, Reply reply)
    cdef _retry(self, Lane lane, Job job)
    cdef bint _has_hope(self, Job job) except? True
    cdef _give_up_hopeless(self)

    cdef bint _is_foremost(self, Lane lane, Job job) except? True

    @cython.locals(lane=Lane)
    cdef Lane _choose(self, Job job)
    cdef _give_up(self, Job job, Reply reply)
