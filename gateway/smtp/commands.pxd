# The C types of commands.py, which is compiled with them.

cimport cython

from gateway._fastpath cimport plain_from, plain_to, read_parameters
from gateway.smtp.address cimport EnvelopeAddress


@cython.freelist(32)
cdef class MailCommand:
    cdef public EnvelopeAddress sender
    cdef public object size
    cdef public bint eight_bit, smtputf8, binary
    cdef public object requests


@cython.freelist(32)
cdef class RcptCommand:
    cdef readonly EnvelopeAddress recipient
    cdef readonly object requests


@cython.locals(plain=tuple, command=MailCommand)
cpdef MailCommand parse_mail(bytes argument, bint auth_offered=*, int offered=*)


@cython.locals(plain=tuple)
cpdef RcptCommand parse_rcpt(bytes argument, bint smtputf8, int offered=*)
cpdef no_argument(bytes argument)
cdef list _parameters(bytes text)
cdef _read_mail_parameters(MailCommand command, bytes text, bint auth_offered, int offered)
