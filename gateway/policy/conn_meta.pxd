# The C types of conn_meta.py, which is compiled with them.

cdef class ConnMeta:
    cdef readonly dict values
