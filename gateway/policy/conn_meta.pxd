# The C types of conn_meta.py, which is compiled with them.

cdef class ConnMeta:
    cdef readonly dict values
    cdef public object witness
    cdef public frozenset secret
    cdef public tuple identities, groups
