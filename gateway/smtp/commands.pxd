# The C types of commands.py, which is compiled with them.

cdef class MailCommand:
    cdef public object sender, size
    cdef public bint eight_bit, smtputf8

cpdef MailCommand parse_mail(bytes argument, bint auth_offered=*)
cpdef parse_rcpt(bytes argument, bint smtputf8)
