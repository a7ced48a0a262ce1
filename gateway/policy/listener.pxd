# The C types of listener.py, which is compiled with them.

from gateway.smtp.terms cimport Terms

cdef class TermsTable:
    cdef bint _offer_auth
    cdef str _scope
    cdef object _root, _computed
    cdef Terms _same_for_all
    cdef dict _known

    cpdef Terms terms_for(self, str peer, str local)
    cpdef Terms _merged(self, list chain)
