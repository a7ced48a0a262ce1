# The C types of listener.py, which is compiled with them.

cdef class ParamsTable:
    cdef object _root, _same_for_all
    cdef dict _known

    cpdef params_for(self, str peer, str local)
