# The C types of routing.py, which is compiled with them.

import cython

from gateway.handover cimport HandOver
from gateway.mail.message cimport Message
from gateway.smtp.address cimport EnvelopeAddress

cdef class Delivery:
    cdef readonly Message message
    cdef readonly str queue_name
    cdef readonly list given, recipients
    cdef readonly object destination
    cdef public HandOver result
    cdef public object notice, requests


@cython.locals(recipient=EnvelopeAddress)
cpdef list split(list recipients, handling)
cpdef bint is_discarded(Message message)


@cython.locals(recipient=EnvelopeAddress)
cpdef list queue_names(Message message, list recipients, str first)


@cython.locals(delivery=Delivery)
cpdef list deliveries(Message message, list given, list recipients, list names, dict destinations)
