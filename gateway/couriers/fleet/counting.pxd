# The C types of counting.py, which is compiled with them.

import cython

from gateway._fastpath cimport CounterPage
from gateway.smtp.client_values cimport Transaction

cdef list _MAIL, _RCPT, _DATA, _END_OF_DATA


@cython.locals(place=Py_ssize_t, recipients=Py_ssize_t, answer=tuple, slots=list, code=int)
cpdef count_transaction(CounterPage page, Transaction transaction)
