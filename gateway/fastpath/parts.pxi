# Finding the parts of a multipart: delimiter lines (RFC 2046 §5.1.1), and in header sections the two fields that tell
# what a part is. Which parts matter, report.pxi knows.
#
# Most lines matter to nobody, and hostile messages have many short ones. So lines are found 64 octets at a time, as
# bits of a number, and a line that does not matter costs looking at its first octet.

cdef extern from *:
    """
    #ifdef __SSE2__
    #include <immintrin.h>
    #endif

    /* Bit i of the result: the n octets from p + i on are `pattern`. Reads 63 + n octets. */
    static inline uint64_t find_in_block(const uint8_t *p, const char *pattern, int n)
    {
        uint64_t found = 0;
    #ifdef __SSE2__
        for (int i = 0; i < 64; i += 16) {
            __m128i equal = _mm_set1_epi8(-1);
            for (int k = 0; k < n; k++) {
                __m128i octets = _mm_loadu_si128((const __m128i *)(p + i + k));
                equal = _mm_and_si128(equal, _mm_cmpeq_epi8(octets, _mm_set1_epi8(pattern[k])));
            }
            found |= (uint64_t)_mm_movemask_epi8(equal) << i;
        }
    #else
        for (int i = 0; i < 64; i++)
            found |= (uint64_t)(memcmp(p + i, pattern, n) == 0) << i;
    #endif
        return found;
    }

    /* From p on in steps of 64, as long as that is before `stop`: on to where in 64 octets the first of a pair begins:
       `first` and then `second`, whatever the 0x20 in that one. Reads 65 octets. */
    static const uint8_t *skip_baseline(const uint8_t *p, const uint8_t *stop, char first, char second)
    {
    #ifdef __SSE2__
        const __m128i a = _mm_set1_epi8(first), b = _mm_set1_epi8(second | 0x20);
        const __m128i folded = _mm_set1_epi8(0x20);
        for (; p < stop; p += 64) {
            __m128i found = _mm_setzero_si128();
            for (int i = 0; i < 64; i += 16) {
                __m128i here = _mm_loadu_si128((const __m128i *)(p + i));
                __m128i next = _mm_or_si128(_mm_loadu_si128((const __m128i *)(p + i + 1)), folded);
                found = _mm_or_si128(found, _mm_and_si128(_mm_cmpeq_epi8(here, a), _mm_cmpeq_epi8(next, b)));
            }
            if (_mm_movemask_epi8(found))
                break;
        }
    #endif
        return p;
    }

    #ifdef __SSE2__
    __attribute__((target("avx2")))
    static const uint8_t *skip_avx2(const uint8_t *p, const uint8_t *stop, char first, char second)
    {
        const __m256i a = _mm256_set1_epi8(first), b = _mm256_set1_epi8(second | 0x20);
        const __m256i folded = _mm256_set1_epi8(0x20);
        for (; p < stop; p += 64) {
            __m256i found = _mm256_setzero_si256();
            for (int i = 0; i < 64; i += 32) {
                __m256i here = _mm256_loadu_si256((const __m256i *)(p + i));
                __m256i next = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(p + i + 1)), folded);
                found = _mm256_or_si256(
                    found, _mm256_and_si256(_mm256_cmpeq_epi8(here, a), _mm256_cmpeq_epi8(next, b)));
            }
            if (_mm256_movemask_epi8(found))
                break;
        }
        return p;
    }
    #endif

    static inline const uint8_t *skip_to_pair(const uint8_t *p, const uint8_t *stop, char first, char second)
    {
    #ifdef __SSE2__
        if (__builtin_cpu_supports("avx2"))
            return skip_avx2(p, stop, first, second);
    #endif
        return skip_baseline(p, stop, first, second);
    }
    """
    uint64_t find_in_block(const uint8_t* p, const char* pattern, int n) noexcept nogil
    const uint8_t* skip_to_pair(const uint8_t* p, const uint8_t* stop, char first, char second) noexcept nogil
    int lowest_bit "__builtin_ctzll"(uint64_t bits) noexcept nogil

cdef enum Delimiter:
    NO_DELIMITER
    NEXT_PART
    CLOSE

cdef enum HeaderEvent:
    CONTENT_TYPE
    CONTENT_TRANSFER_ENCODING
    END_OF_HEADER

cdef enum:
    LOOKAHEAD = 64 + 2
    MAX_GUESSES = 256           # dashes that are looked at one by one, before reading everything is cheaper

cdef struct LineEnds:       # a place in a message, and line ends from there on
    const uint8_t* block    # 64 octets that are being looked at
    uint64_t found          # bit i: block[i] is such a line end, and it is still to come
    const uint8_t* end      # what to look through
    const uint8_t* limit    # what may be read: the end of the message

cdef struct HeaderReader:
    LineEnds ends
    const uint8_t* line     # where to read on: the start of a line
    bint stuffed            # see LineReader
    bint after_crlf

cdef struct PartReader:
    LineEnds ends
    const uint8_t* p        # the start of a line
    Span delimiter          # "--" and the boundary
    int lines_left          # that begin with the delimiter and may still be looked at


# --- lines ---

cdef inline uint64_t line_ends_of_block(const uint8_t* p, const uint8_t* limit, bint dashed) noexcept nogil:
    cdef uint8_t[LOOKAHEAD] last
    if limit - p < LOOKAHEAD:
        memset(last, 0, sizeof(last))
        memcpy(last, p, limit - p)
        p = last
    return find_in_block(p, b"\n--", 3) if dashed else find_in_block(p, b"\n", 1)


cdef inline void line_ends_from(
    LineEnds* ends, const uint8_t* p, const uint8_t* end, const uint8_t* limit, bint dashed
) noexcept nogil:
    ends.block = p
    ends.found = line_ends_of_block(p, limit, dashed)
    ends.end = end
    ends.limit = limit


cdef inline const uint8_t* line_end_next(LineEnds* ends, bint dashed) noexcept nogil:
    """The next line end; with `dashed` the next one that two dashes follow. `end` if there is none."""
    cdef const uint8_t* p
    while ends.found == 0:
        if ends.end - ends.block <= 64:
            return ends.end
        ends.block += 64
        if dashed:
            ends.block = skip_to_pair(ends.block, min(ends.end - 64, ends.limit - LOOKAHEAD + 1), c'\n', c'-')
        ends.found = line_ends_of_block(ends.block, ends.limit, dashed)
    p = ends.block + lowest_bit(ends.found)
    ends.found &= ends.found - 1
    if p >= ends.end:
        ends.found = 0
        ends.block = ends.end
        return ends.end
    return p


# --- a word, wherever ---

cdef bint may_hold(
    const uint8_t* p, const uint8_t* end, const uint8_t* limit, Span word, Py_ssize_t dash
) noexcept nogil:
    """False if `word`, in lower case, with a dash at index `dash` and a letter behind it, is nowhere between p and
    `end` in whatever case. A little more may be looked at, up to `limit`, and after MAX_GUESSES in vain it is over, so
    that True says nothing for certain."""
    cdef int left = MAX_GUESSES
    cdef const uint8_t* block = p
    cdef const uint8_t* found
    cdef uint64_t dashes
    while block < end:
        block = skip_to_pair(block, min(end, limit - LOOKAHEAD + 1), c'-', word.p[dash + 1])
        if block >= end:
            return False
        if limit - block < LOOKAHEAD:
            found = max(p, block - dash)
            return has_folded(Span(found, limit - found), word)
        dashes = find_in_block(block, b"-", 1)
        while dashes:
            found = block + lowest_bit(dashes)
            dashes &= dashes - 1
            if (found - p >= dash and limit - found >= <Py_ssize_t>word.n - dash
                    and equals_folded(Span(found - dash, word.n), word)):
                return True
            left -= 1
        if left <= 0:
            return True
        block += 64
    return False


# --- header sections ---

cdef const uint8_t* value_behind(const uint8_t* p, const uint8_t* end, Span name) noexcept nogil:
    # Where the value of the field that begins at p begins, if the field is `name`, else NULL.
    if <size_t>(end - p) <= name.n or not equals_folded(Span(p, name.n), name):
        return NULL
    p += name.n
    while p < end and is_blank(p[0]):  # RFC 5322 §4.5
        p += 1
    return p + 1 if p < end and p[0] == c':' else NULL


cdef inline void header_from(
    HeaderReader* r, const uint8_t* p, const uint8_t* end, const uint8_t* limit, bint stuffed
) noexcept nogil:
    line_ends_from(&r.ends, p, end, limit, False)
    r.line = p
    r.stuffed = stuffed
    r.after_crlf = True


cdef HeaderEvent header_next(HeaderReader* r, Span* value) noexcept nogil:
    """The next of the two fields, with what of its value is read, or the end of the header section: then `r.line` is
    where the content begins."""
    cdef const uint8_t* end = r.ends.end
    cdef const uint8_t* p
    cdef const uint8_t* start
    cdef const uint8_t* stop
    cdef HeaderEvent event
    while r.line < end:
        p = r.line
        if p[0] == c'.' and r.stuffed and r.after_crlf and p + 1 < end:
            p += 1
        stop = line_end_next(&r.ends, False)
        if stop < end and (p == stop or (p + 1 == stop and p[0] == c'\r')):
            r.line = stop + 1
            return END_OF_HEADER
        start = NULL
        event = CONTENT_TYPE
        if p[0] | 0x20 == c'c':
            start = value_behind(p, stop, literal(b"content-type"))
            if start == NULL:
                event = CONTENT_TRANSFER_ENCODING
                start = value_behind(p, stop, literal(b"content-transfer-encoding"))
        while start != NULL and stop < end and stop + 1 < end and is_blank(stop[1]):  # continuation lines
            stop = line_end_next(&r.ends, False)
        r.line = stop + (stop < end)
        r.after_crlf = (stop - 1)[0] == c'\r'
        if start != NULL:
            value[0] = Span(start, min(stop - start, <Py_ssize_t>MAX_CONTENT_TYPE))
            return event
    return END_OF_HEADER


cdef inline const uint8_t* body_behind(HeaderReader* r) noexcept nogil:
    """Reads the rest of a header section of which the end is still to come; where the content begins."""
    cdef Span ignored
    while header_next(r, &ignored) != END_OF_HEADER:
        pass
    return r.line


# --- delimiter lines ---

cdef Delimiter delimiter_end(const uint8_t* p, const uint8_t* end, const uint8_t** following) noexcept nogil:
    # Behind the boundary: "--" if it closes, blanks, the line end (RFC 2046 §5.1.1, transport-padding).
    cdef Delimiter kind = NEXT_PART
    if end - p >= 2 and p[0] == c'-' and p[1] == c'-':
        kind = CLOSE
        p += 2
    while p < end and is_blank(p[0]):
        p += 1
    if end - p >= 2 and p[0] == c'\r' and p[1] == c'\n':
        p += 1
    if p < end and p[0] != c'\n':
        return NO_DELIMITER
    following[0] = p + (p < end)
    return kind


cdef inline void parts_from(PartReader* r, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Begin with the body from p on, in front of which stands a line end."""
    line_ends_from(&r.ends, p - 1, end, end, True)
    r.p = p


cdef inline bint begins_with(const uint8_t* p, const uint8_t* end, Span delimiter) noexcept nogil:
    # Two dashes stand at p. Most lines that do not begin with the boundary differ in its first octet.
    return (
        <size_t>(end - p) >= delimiter.n and p[2] == delimiter.p[2]
        and (delimiter.n == 3 or memcmp(p + 3, delimiter.p + 3, delimiter.n - 3) == 0)
    )


cdef Delimiter delimiter_next(PartReader* r, const uint8_t** before) noexcept nogil:
    """On to the next delimiter line. Sets `r.p` behind that line and `before` to where the content in front of it
    ends; both to the end of the message if there is none, or if too many lines were looked at."""
    cdef const uint8_t* start = r.p
    cdef const uint8_t* end = r.ends.end
    cdef const uint8_t* stop = line_end_next(&r.ends, True)
    cdef Delimiter kind
    while stop < end and r.lines_left:
        if begins_with(stop + 1, end, r.delimiter):
            r.lines_left -= 1
            kind = delimiter_end(stop + 1 + r.delimiter.n, end, &r.p)
            if kind != NO_DELIMITER:
                # the line end belongs to the delimiter
                before[0] = stop - (stop > start and (stop - 1)[0] == c'\r') if stop >= start else start
                return kind
        stop = line_end_next(&r.ends, True)
    before[0] = r.p = end
    return NO_DELIMITER
