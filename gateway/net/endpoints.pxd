# The C types of endpoints.py, which is compiled with them.

cdef class Endpoints:
    cdef readonly bytes peer
    cdef readonly str peer_address, local_address, received_from, received_via
    cdef readonly dict told


cdef str _with_port(str address, int port)
