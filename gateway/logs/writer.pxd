# The C types of writer.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport CounterPage
from gateway.later cimport Later
from gateway.logs.encoding cimport Record, Selection

cdef class _Logger:
    cdef readonly object config, filter_event
    cdef readonly long long back_pressure
    cdef public long long submitted, written
    cdef readonly dict routes
    cdef readonly list destinations

cdef class _Route:
    cdef readonly _Logger logger
    cdef readonly list lines

cdef class _Group:
    cdef readonly Selection selection
    cdef readonly list routes


@cython.locals(meta=bytes, headers=bytes)
cdef bytes _line(Record record, Selection selection, message)


@cython.final
cdef class LogWriter:
    cdef readonly bint full
    cdef readonly object disk_problem
    cdef CounterPage _page
    cdef object _filter, _call_soon, _thread, _work, _hurry
    cdef list _loggers, _destinations, _room_wanted, _durable_wanted
    cdef dict _plan, _undecided
    cdef bint _sure, _awake, _closing
    cdef long long _bytes
    cdef double _next_check, _next_sync

    @cython.locals(group=_Group, route=_Route, logger=_Logger, line=bytes, taken=bint)
    cpdef bint submit(self, Record record, message=*) except -1
    cdef _put(self, _Route route, bytes line)
    cdef _taken(self, str kind)
    cpdef Later durable(self)
