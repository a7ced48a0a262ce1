# The C types of facts.py, which is compiled with them.

from gateway.logs cimport records
from gateway.net.endpoints cimport Endpoints
from gateway.smtp.session cimport ServerSession
from gateway.smtp.terms cimport Terms
from gateway.smtp.trace cimport received_from, with_protocol

cpdef dict known_at_first(Endpoints endpoints, Terms terms)
cpdef bint limited_as_relay_host(ServerSession session, Endpoints endpoints, Terms terms) except -1
cpdef records.Origin origin(ServerSession session, Endpoints endpoints, str session_id, tls)
cpdef str received_start(ServerSession session, Endpoints endpoints, str hostname, tls, bint smtputf8)
