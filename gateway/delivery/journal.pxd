# The C types of journal.py, which is compiled with them.

import cython

from gateway.handover cimport HandOver
from gateway.mail.message cimport Message
from gateway.delivery.routing cimport Delivery
from gateway.delivery.services cimport Services
from gateway.logs cimport records

cdef class Accepted:
    cdef readonly Message message
    cdef readonly str queue_name
    cdef readonly object report
    cdef readonly bint relayed, dropped


@cython.locals(entry=Accepted, message=Message, all_taken=bint)
cpdef bint log_messages(
    Services services, records.Origin origin, list accepted, unreadable, long long now_ns
) except -1


@cython.locals(delivery=Delivery, message=Message, result=HandOver, all_taken=bint, bounced=bint)
cpdef bint log_hand_overs(
    Services services, records.Origin origin, list handed_over, bint accepted, long long now_ns
) except -1
