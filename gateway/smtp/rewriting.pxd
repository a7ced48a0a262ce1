# The C types of rewriting.py, which is compiled with them.

from gateway.smtp.replies cimport Reply
from gateway.smtp.session cimport ServerSession

cdef class RewritingSession(ServerSession):
    cdef list _made
    cdef object _due
    cdef bint _is_shown, _asks

    cpdef next_event(self)
    cpdef release(self, Reply reply)
    cpdef give_up(self)
    cpdef bint is_over(self)
    cdef _say(self, Reply reply)
