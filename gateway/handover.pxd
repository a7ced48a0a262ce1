# The C types of handover.py, which is compiled with them.

from gateway._fastpath cimport Content
from gateway.smtp.address cimport EnvelopeAddress

cimport cython


@cython.freelist(16)
cdef class Batch:
    cdef readonly str message_id
    cdef readonly EnvelopeAddress sender
    cdef readonly object recipients
    cdef readonly Content content
    cdef readonly bint smtputf8, divisible
    cdef readonly object client, requests


@cython.freelist(32)
cdef class RecipientOutcome:
    cdef readonly EnvelopeAddress recipient
    cdef readonly object status, response, reason


@cython.freelist(16)
cdef class HandOver:
    cdef readonly list outcomes
    cdef readonly str site, protocol, peer_name, peer_address, session_id, source_address, tls_cipher
    cdef readonly str tls_protocol_version
    cdef readonly double seconds
    cdef public object relayed
