# The C types of choice.py, which is compiled with them.

import cython

from gateway.couriers.fleet.job cimport Job
from gateway.couriers.fleet.lane cimport Lane


@cython.locals(index=Py_ssize_t, lane=Lane, best=Lane)
cpdef Lane choose(list lanes, Job job, Py_ssize_t first)
