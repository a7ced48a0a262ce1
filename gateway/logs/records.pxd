# The C types of records.py, which is compiled with them.

cimport cython

from gateway.logs.encoding cimport Draft, Form, Record
from gateway.mail.message cimport Message
from gateway.handover cimport HandOver, RecipientOutcome
from gateway.smtp.address cimport EnvelopeAddress
from gateway.smtp.response cimport Response

cdef class Origin:
    cdef readonly str peer_name, peer_address, session_id, protocol, tls_cipher, tls_protocol_version
    cdef readonly object tls_peer_subject_name

cdef Draft _draft
cdef dict _enhanced_codes, _reception_forms, _hand_over_forms

cdef Draft _begun(Form form)


@cython.locals(recipient=EnvelopeAddress)
cdef _put_recipients(Draft draft, recipients)


@cython.locals(sender=EnvelopeAddress)
cdef _put_envelope(Draft draft, Message message, recipients, str queue)

cdef _put_response(Draft draft, long long code, enhanced, str content)
cdef bytes _enhanced_code(text)

cdef str _on_one_line(str text)


@cython.locals(seconds="long long")
cdef _put_event_time(Draft draft, long long ns)


@cython.locals(received_at=double, microseconds="long long", seconds="long long")
cdef _put_created(Draft draft, Message message)

cdef _put_session(Draft draft, Origin origin)

cpdef Record reception(Message message, Origin origin, queue, long long now_ns, unreadable=*)

cdef Record _accepted(Form form, Message message, Origin origin, queue, long long now_ns)

cdef str _type_of(status)

cpdef list handed_over(
    Message message, Origin origin, queue, HandOver result, long long now_ns, egress_pool=*, notice=*
)


@cython.locals(
    first=RecipientOutcome, answer=Response, peer=bint, source=bint, tls=bint, session=bint, reason=bint, tells=bint,
    shape=int, forms=dict, form=Form
)
cdef Record _outcome(
    str kind, Message message, Origin origin, queue, HandOver result, long long now_ns, egress_pool, list outcomes,
    notice
)

cdef list _same_results(list outcomes)
