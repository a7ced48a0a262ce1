# The C types of decision.py, which is compiled with them.

cdef class Decision:
    cdef readonly bint relay, takes_reports
    cdef readonly object log_oob, log_arf
    cdef readonly tuple recipient_class

cpdef bint grants_anybody(domain)
cpdef bint sender_matters(bint relay_host, recipient)
cpdef Decision decide(bint relay_host, bytes peer, recipient, sender)
cpdef fate(Decision decision, kind)
