# The arguments of MAIL and RCPT in their common form: `FROM:<dot-string@domain> parameters`, all in ASCII.
#
# One pass over the octets instead of regular expressions. What is not of that form (quoted strings, literals, source
# routes, UTF-8, sloppiness, errors) is None here and gateway/smtp/commands.py's business. Their parameters are read
# here in every form.

from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_DecodeASCII, PyUnicode_New

cdef enum:
    MAX_LABEL_OCTETS = 63    # RFC 1035 §2.3.4
    MAX_DOMAIN_OCTETS = 255  # RFC 5321 §4.5.3.1.2


cdef struct PlainPath:  # indices into the argument
    Py_ssize_t local_part
    Py_ssize_t at_sign
    Py_ssize_t closing


cdef inline bint is_alphanumeric(uint8_t c) noexcept nogil:
    return (c'a' <= c <= c'z') or (c'0' <= c <= c'9') or (c'A' <= c <= c'Z')


cdef inline bint is_atext(uint8_t c) noexcept nogil:
    # RFC 5322 §3.2.3; the printable octets without specials
    return c > SP and c < 0x7F and memchr(b'()<>[]:;@\\,."', c, 13) is NULL


cdef Py_ssize_t end_of_dot_string(const uint8_t *p, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The index behind the Dot-string that begins at `at` (RFC 5321 §4.1.2), or -1."""
    cdef bint atom = False
    while at < end:
        if is_alphanumeric(p[at]) or is_atext(p[at]):
            atom = True
        elif p[at] == DOT and atom:
            atom = False
        else:
            break
        at += 1
    return at if atom else -1


cdef Py_ssize_t end_of_domain(const uint8_t *p, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
    """The index behind the domain that begins at `at`, or -1. As normalise_domain() has it: "_" within a label."""
    cdef Py_ssize_t start = at, label = at
    while at < end:
        if p[at] == DOT:
            if at == label or at - label > MAX_LABEL_OCTETS or not is_alphanumeric(p[at - 1]):
                return -1
            label = at + 1
        elif not is_alphanumeric(p[at]) and (at == label or (p[at] != c'-' and p[at] != c'_')):
            break
        at += 1
    if at == label or at - label > MAX_LABEL_OCTETS or at - start > MAX_DOMAIN_OCTETS:
        return -1
    return at if is_alphanumeric(p[at - 1]) else -1


cdef bint find_plain_path(const uint8_t *p, Py_ssize_t n, Span keyword, PlainPath *found) noexcept nogil:
    cdef Py_ssize_t at = <Py_ssize_t>keyword.n
    if n < at or not equals_folded(Span(p, keyword.n), keyword):
        return False
    while at < n and is_blank(p[at]):
        at += 1
    if at == n or p[at] != c'<':
        return False
    found.local_part = at + 1
    found.at_sign = end_of_dot_string(p, at + 1, n)
    if found.at_sign < 0 or found.at_sign == n or p[found.at_sign] != c'@':
        return False
    found.closing = end_of_domain(p, found.at_sign + 1, n)
    if found.closing < 0 or found.closing == n or p[found.closing] != c'>':
        return False
    return found.closing + 1 == n or is_blank(p[found.closing + 1])


cdef tuple plain_path(bytes argument, Span keyword):
    cdef const uint8_t *p = octets_of(argument)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(argument)
    cdef PlainPath found
    cdef Py_ssize_t i
    if not find_plain_path(p, n, keyword, &found):
        return None
    cdef Py_ssize_t length = found.closing - found.local_part
    cdef Py_ssize_t domain_at = found.at_sign + 1 - found.local_part
    cdef str email = PyUnicode_New(length, 0x7F)
    cdef uint8_t *text = <uint8_t *>PyUnicode_1BYTE_DATA(email)
    memcpy(text, p + found.local_part, length)
    for i in range(domain_at, length):
        if c'A' <= text[i] <= c'Z':
            text[i] += 32
    cdef str domain = PyUnicode_DecodeASCII(<const char *>text + domain_at, length - domain_at, NULL)
    return email, domain, part_of(argument, found.closing + 1, n)


cpdef tuple plain_from(bytes argument):
    return plain_path(argument, literal(b"from:"))


cpdef tuple plain_to(bytes argument):
    return plain_path(argument, literal(b"to:"))


# --- parameters ---

cdef inline bint is_value(uint8_t c) noexcept nogil:
    # RFC 5321 §4.1.2: esmtp-value; RFC 6531 §3.3 adds UTF-8
    return c > SP and c != c'=' and c != 0x7F


cdef str upper_keyword(const uint8_t *p, Py_ssize_t n):
    cdef str keyword = PyUnicode_New(n, 0x7F)
    cdef uint8_t *text = <uint8_t *>PyUnicode_1BYTE_DATA(keyword)
    cdef Py_ssize_t i
    for i in range(n):
        text[i] = p[i] - 32 if c'a' <= p[i] <= c'z' else p[i]
    return keyword


cpdef list read_parameters(bytes text):
    # RFC 5321 §4.1.2: esmtp-keyword ["=" esmtp-value], separated by SP; HTAB is served, no other octet
    cdef const uint8_t *p = octets_of(text)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text), at = 0, keyword, equals
    cdef list found = []
    while True:
        while at < n and is_blank(p[at]):
            at += 1
        if at == n:
            return found
        keyword = at
        while at < n and (is_alphanumeric(p[at]) or (p[at] == c'-' and at > keyword)):
            at += 1
        if at == keyword:
            return None
        equals = at
        if at < n and p[at] == c'=':
            at += 1
            while at < n and is_value(p[at]):
                at += 1
            if at == equals + 1:
                return None
        if at < n and not is_blank(p[at]):
            return None
        found.append((
            upper_keyword(p + keyword, equals - keyword),
            part_of(text, equals + 1, at) if at > equals else None,
        ))
