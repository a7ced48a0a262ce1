# Content-Type and its parameters: RFC 2045 §5.1 with comments and quoted-pairs, RFC 2231. Works on the raw value of
# the field, folds included. Wider than the grammar where mailers leave quotes away. Which types matter: see report.pxi.

cdef extern from *:
    """
    static const uint8_t ends_word[256] = {
        [';'] = 1, ['('] = 1, [' '] = 1, ['\\t'] = 1, ['\\r'] = 1, ['\\n'] = 1
    };
    """
    const uint8_t* ends_word

cdef enum:
    MAX_CONTENT_TYPE = 16384  # octets of a Content-Type that are read; the longest ones seen have 300
    MAX_SECTIONS = 16         # pieces of one parameter (RFC 2231 §3)

cdef struct Parameter:
    Span name
    Span value             # without the quotes
    bint quoted
    bint has_pairs         # there may be quoted-pairs in it


cdef inline bint is_fws(uint8_t c) noexcept nogil:
    return is_blank(c) or c == c'\n' or c == c'\r'


cdef inline void advance(Span* s, size_t n) noexcept nogil:
    s.p += n
    s.n -= n


cdef void skip_comments(Span* s) noexcept nogil:
    # RFC 5322 §3.2.2: blanks, folds and comments, which nest.
    cdef size_t depth = 0
    cdef uint8_t c
    while s.n:
        c = s.p[0]
        if c == c'(':
            depth += 1
        elif depth == 0 and not is_fws(c):
            return
        elif depth and c == c')':
            depth -= 1
        elif depth and c == c'\\' and s.n > 1:
            advance(s, 1)
        advance(s, 1)


cdef Span take_word(Span* s, uint8_t stop) noexcept nogil:
    # Wider than RFC 2045's token: mailers leave quotes away round "=", "/" and the like.
    cdef Span word = s[0]
    cdef size_t n = 0
    while n < word.n and word.p[n] != stop and not ends_word[word.p[n]]:
        n += 1
    advance(s, n)
    word.n = n
    return word


cdef Span take_quoted(Span* s, bint* has_pairs) noexcept nogil:
    # RFC 5322 §3.2.4; s begins with the opening quote. One without its end goes up to the end of the field.
    cdef Span inner
    cdef const uint8_t* end
    advance(s, 1)
    inner = s[0]
    end = <const uint8_t*>memchr(s.p, c'"', s.n)
    has_pairs[0] = end == NULL or memchr(s.p, c'\\', end - s.p) != NULL
    if not has_pairs[0]:  # nearly always
        advance(s, end - s.p)
    while s.n and s.p[0] != c'"':
        advance(s, 2 if s.p[0] == c'\\' and s.n > 1 else 1)
    inner.n -= s.n
    if s.n:
        advance(s, 1)
    return inner


cdef bint parameter_next(Span* s, Parameter* found) noexcept nogil:
    """The next `name=value` behind a semicolon; a name without `=` has an empty value."""
    while s.n and s.p[0] != c';':
        if s.p[0] == c'"':
            take_quoted(s, &found.has_pairs)
        elif s.p[0] == c'(':
            skip_comments(s)
        else:
            advance(s, 1)
    while s.n and (s.p[0] == c';' or s.p[0] == c'(' or is_fws(s.p[0])):
        if s.p[0] == c';':
            advance(s, 1)
        skip_comments(s)
    if s.n == 0:
        return False
    found.name = take_word(s, c'=')
    skip_comments(s)
    found.quoted = found.has_pairs = False
    found.value.p = s.p
    found.value.n = 0
    if s.n and s.p[0] == c'=':
        advance(s, 1)
        skip_comments(s)
        found.quoted = s.n and s.p[0] == c'"'
        found.value = take_quoted(s, &found.has_pairs) if found.quoted else take_word(s, c';')
    return True


cdef int parameter_place(Span name, Span wanted, bint* extended) noexcept nogil:
    # RFC 2231: 0 for `wanted` or `wanted*`, 1 + N for its section `wanted*N` or `wanted*N*`, -1 for another name.
    # A final asterisk: percent-encoded.
    cdef int number = 0
    if name.n < wanted.n or not equals_folded(Span(name.p, wanted.n), wanted):
        return -1
    advance(&name, wanted.n)
    extended[0] = name.n > 0 and name.p[name.n - 1] == c'*'
    name.n -= extended[0]
    if name.n == 0:
        return 0
    if name.n < 2 or name.n > 3 or name.p[0] != c'*':
        return -1
    for i in range(1, name.n):
        if not c'0' <= name.p[i] <= c'9':
            return -1
        number = number * 10 + name.p[i] - c'0'
    return 1 + number if number < MAX_SECTIONS else -1


cdef int hex_pair(Span s) noexcept nogil:
    """The octet that two hexadecimal digits at the start of `s` stand for, or -1."""
    cdef int value = 0
    cdef uint8_t c
    if s.n < 2:
        return -1
    for i in range(2):
        c = s.p[i]
        if c'0' <= c <= c'9':
            value = value * 16 + c - c'0'
        elif c'a' <= (c | 0x20) <= c'f':
            value = value * 16 + (c | 0x20) - c'a' + 10
        else:
            return -1
    return value


cdef Span without_charset(Span value) noexcept nogil:
    # RFC 2231 §4: charset'language'text
    cdef size_t i
    cdef int quotes = 0
    for i in range(value.n):
        quotes += value.p[i] == c"'"
        if quotes == 2:
            advance(&value, i + 1)
            break
    return value


cdef size_t parameter_append(Parameter* found, bint extended, uint8_t* out, size_t used, size_t room) noexcept nogil:
    cdef Span rest = found.value
    cdef int octet
    if rest.n and not extended and not found.has_pairs and memchr(rest.p, c'\n', rest.n) == NULL:  # nearly always
        rest.n = min(rest.n, room - used)
        memcpy(out + used, rest.p, rest.n)
        return used + rest.n
    while rest.n and used < room:
        octet = hex_pair(Span(rest.p + 1, rest.n - 1)) if extended and rest.p[0] == c'%' else -1
        if octet >= 0:
            advance(&rest, 2)
        elif found.quoted and rest.p[0] == c'\\' and rest.n > 1:
            advance(&rest, 1)
        if octet >= 0 or not (rest.p[0] == c'\n' or (rest.p[0] == c'\r' and rest.n > 1 and rest.p[1] == c'\n')):
            out[used] = octet if octet >= 0 else rest.p[0]
            used += 1
        advance(&rest, 1)
    return used


cdef size_t parameter_copy(Span parameters, Span wanted, uint8_t* out, size_t room) noexcept nogil:
    """Write the value of a parameter to `out`, put together from its sections; the octets written, at most `room`."""
    cdef Parameter[1 + MAX_SECTIONS] pieces
    cdef bint[1 + MAX_SECTIONS] extended
    cdef uint32_t seen = 0
    cdef Parameter found
    cdef bint encoded = False
    cdef size_t used = 0
    cdef int place
    while not seen & 1 and parameter_next(&parameters, &found):
        place = parameter_place(found.name, wanted, &encoded)
        if place >= 0 and not (seen >> place) & 1:  # of repeated parameters the first counts
            pieces[place] = found
            extended[place] = encoded
            seen |= <uint32_t>1 << place
    place = 0 if seen & 1 else 1
    while (seen >> place) & 1:
        if extended[place] and place <= 1:
            pieces[place].value = without_charset(pieces[place].value)
        used = parameter_append(&pieces[place], extended[place], out, used, room)
        place = 1 + MAX_SECTIONS if place == 0 else place + 1
    return used
