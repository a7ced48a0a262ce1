# Where a message ends: CRLF.CRLF and nothing else (RFC 5321 §4.1.1.4), however reads split the bytes.

cdef extern from *:
    """
    #include <stddef.h>
    /* The first "\\n." in p[0..n), or n. Blocks are tested without branches: so compilers use vectors. */
    static size_t find_dot_line(const char *p, size_t n) {
        size_t i = 0;
        while (i + 65 <= n) {
            unsigned char hit = 0;
            for (size_t k = 0; k < 64; k++)
                hit |= (unsigned char)((p[i + k] == '\\n') & (p[i + k + 1] == '.'));
            if (hit) break;
            i += 64;
        }
        for (; i + 1 < n; i++)
            if (p[i] == '\\n' && p[i + 1] == '.') return i;
        return n;
    }
    """
    size_t find_dot_line(const char* p, size_t n) nogil

cdef const char* TERMINATOR = b"\r\n.\r\n"


cdef inline int matched_suffix(const char* p, size_t n) noexcept nogil:
    """How many of the last bytes are the beginning of the terminator (0 to 4)."""
    cdef int k = <int>min(n, <size_t>4)
    while k > 0 and memcmp(p + n - k, TERMINATOR, <size_t>k) != 0:
        k -= 1
    return k
