# What a part is, by its Content-Type: the types that reports are made of (RFC 3464, 5965, 6522, 6533), and those that
# are nearly theirs. How a Content-Type is read is content_type.pxi's.

cdef extern from *:
    """
    #define MULTIPAR 0x6d756c7469706172u  /* "multipar" */
    """
    const uint64_t MULTIPAR

cdef enum MediaType:
    OTHER_TYPE
    MULTIPART_REPORT
    MULTIPART_MIXED
    OTHER_MULTIPART
    DELIVERY_STATUS
    FEEDBACK_REPORT
    ORIGINAL                    # the message that the report is about, or its header section
    NEARLY_STATUS               # a private or slightly wrong name for one of these three
    NEARLY_FEEDBACK
    NEARLY_ORIGINAL

cdef enum ReportType:           # the parameter of multipart/report (RFC 6522 §3)
    NO_REPORT_TYPE
    STATUS_WANTED
    FEEDBACK_WANTED
    OTHER_REPORT_TYPE
    RECEIPT                     # of a message that was read, whatever is in it


cdef MediaType nearly(Span subtype) noexcept nogil:
    # message/x-delivery-status, text/delivery-status, message/delivery_status; message/x-feedback-report
    if subtype.n > 64:
        return OTHER_TYPE
    if has_folded(subtype, literal(b"delivery")) and has_folded(subtype, literal(b"status")):
        return NEARLY_STATUS
    if has_folded(subtype, literal(b"feedback")) and has_folded(subtype, literal(b"report")):
        return NEARLY_FEEDBACK
    return NEARLY_ORIGINAL if has_folded(subtype, literal(b"rfc822")) else OTHER_TYPE


cdef MediaType multipart_type(Span subtype) noexcept nogil:
    if equals_folded(subtype, literal(b"report")):
        return MULTIPART_REPORT
    return MULTIPART_MIXED if equals_folded(subtype, literal(b"mixed")) else OTHER_MULTIPART


cdef MediaType media_type(Span* s) noexcept nogil:
    """What the Content-Type in `s` names; leaves its parameters in `s`."""
    cdef Span kind, subtype
    cdef uint8_t first
    skip_comments(s)
    first = s.p[0] | 0x20 if s.n else 0
    if first != c'm' and first != c't' and first != c'a':
        return OTHER_TYPE
    if (s.n > 10 and load_be64(s.p) | FOLD_8 == MULTIPAR and s.p[8] | 0x20 == c't' and s.p[9] == c'/'
            and s.p[10] > c')'):  # as nearly all of them are written
        advance(s, 10)
        return multipart_type(take_word(s, c';'))
    kind = take_word(s, c'/')
    skip_comments(s)
    if s.n == 0 or s.p[0] != c'/':
        return OTHER_TYPE
    advance(s, 1)
    skip_comments(s)
    if s.n and equals_folded(kind, literal(b"multipart")):
        return multipart_type(take_word(s, c';'))
    if s.n == 0 or s.p[0] | 0x20 == c'p' or s.p[0] | 0x20 == c'h':  # text/plain, text/html: most parts
        return OTHER_TYPE
    subtype = take_word(s, c';')
    if equals_folded(kind, literal(b"text")):
        return ORIGINAL if equals_folded(subtype, literal(b"rfc822-headers")) else nearly(subtype)
    if not equals_folded(kind, literal(b"message")):
        return nearly(subtype)
    # RFC 6533: the global-… types carry UTF-8.
    if (equals_folded(subtype, literal(b"delivery-status"))
            or equals_folded(subtype, literal(b"global-delivery-status"))):
        return DELIVERY_STATUS
    if equals_folded(subtype, literal(b"feedback-report")):
        return FEEDBACK_REPORT
    if (equals_folded(subtype, literal(b"rfc822")) or equals_folded(subtype, literal(b"global"))
            or equals_folded(subtype, literal(b"global-headers"))):
        return ORIGINAL
    return nearly(subtype)


cdef inline bint is_multipart(MediaType kind) noexcept nogil:
    return kind == MULTIPART_REPORT or kind == MULTIPART_MIXED or kind == OTHER_MULTIPART


cdef Encoding encoding_named(Span value) noexcept nogil:
    cdef Span word
    skip_comments(&value)
    word = take_word(&value, c';')
    if equals_folded(word, literal(b"base64")):
        return BASE64
    return QUOTED_PRINTABLE if equals_folded(word, literal(b"quoted-printable")) else IDENTITY


cdef inline bint is_plainly_receipt(Span parameters) noexcept nogil:
    """Whether that is the first parameter, written as nearly all of them are."""
    cdef Span receipt = literal(b"report-type=disposition-notification")
    cdef size_t i = 1
    while i < parameters.n and is_fws(parameters.p[i]):
        i += 1
    if parameters.n < i + receipt.n or memcmp(parameters.p + i, receipt.p, receipt.n) != 0:
        return False
    i += receipt.n
    return parameters.p[0] == c';' and (i == parameters.n or ends_word[parameters.p[i]])


cdef ReportType report_type_read(Span parameters) noexcept nogil:
    cdef uint8_t[32] value
    cdef Span name
    if is_plainly_receipt(parameters):
        return RECEIPT
    name.p = value
    name.n = parameter_copy(parameters, literal(b"report-type"), value, sizeof(value))
    if name.n == 0:
        return NO_REPORT_TYPE
    if equals_folded(name, literal(b"delivery-status")):
        return STATUS_WANTED
    if equals_folded(name, literal(b"disposition-notification")):
        return RECEIPT
    return FEEDBACK_WANTED if equals_folded(name, literal(b"feedback-report")) else OTHER_REPORT_TYPE
