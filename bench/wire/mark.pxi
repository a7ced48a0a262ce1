# The mark of a message: how the sink knows that it arrived once and intact.
#
# The source starts every message with one header field of fixed length,
#
#     X-Bench: <run, 16 hex digits> <sequence number, 16> <check, 16>
#
# where the check mixes run, number and a hash of the body. The body is everything after the first empty
# line, as it is on the wire (dot-stuffed), up to and with the CRLF before the final dot: relays prepend
# header fields and may reorder them, but none may touch the body. The hash is made for speed and
# accidents, not adversaries.

cdef enum:
    MARK_LENGTH = 61        # "X-Bench: " + 3 * 16 digits + 2 spaces + CRLF

cdef struct BodyHash:
    uint64_t lane[4]
    uint8_t tail[32]        # bytes that do not fill a block yet
    uint32_t tail_length
    uint64_t total


cdef inline uint64_t scramble(uint64_t x) noexcept nogil:
    # The finaliser of MurmurHash3: every input bit reaches every output bit.
    x = (x ^ (x >> 33)) * <uint64_t>0xff51afd7ed558ccd
    x = (x ^ (x >> 33)) * <uint64_t>0xc4ceb9fe1a85ec53
    return x ^ (x >> 33)


cdef inline void hash_start(BodyHash* h) noexcept nogil:
    h.lane[0] = <uint64_t>0x9e3779b97f4a7c15
    h.lane[1] = <uint64_t>0xbf58476d1ce4e5b9
    h.lane[2] = <uint64_t>0x94d049bb133111eb
    h.lane[3] = <uint64_t>0xd6e8feb86659fd93
    h.tail_length = 0
    h.total = 0


cdef inline void hash_block(BodyHash* h, const uint8_t* p) noexcept nogil:
    cdef uint64_t word
    cdef int i
    for i in range(4):
        memcpy(&word, p + 8 * i, 8)
        h.lane[i] = (h.lane[i] ^ word) * <uint64_t>0x9fb21c651e98df25
        h.lane[i] ^= h.lane[i] >> 32


cdef inline void hash_update(BodyHash* h, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t take
    h.total += n
    if h.tail_length:
        take = min(n, <size_t>(32 - h.tail_length))
        memcpy(h.tail + h.tail_length, p, take)
        h.tail_length += <uint32_t>take
        p += take
        n -= take
        if h.tail_length < 32:
            return
        hash_block(h, h.tail)
        h.tail_length = 0
    while n >= 32:
        hash_block(h, p)
        p += 32
        n -= 32
    memcpy(h.tail, p, n)
    h.tail_length = <uint32_t>n


cdef inline uint64_t hash_finish(BodyHash* h) noexcept nogil:
    cdef uint64_t result = h.total
    cdef int i
    memset(h.tail + h.tail_length, 0, 32 - h.tail_length)
    hash_block(h, h.tail)
    for i in range(4):
        result = scramble(result ^ h.lane[i])
    return result


cdef inline uint64_t mark_check(uint64_t run, uint64_t number, uint64_t body) noexcept nogil:
    return scramble(scramble(scramble(run) ^ number) ^ body)


cdef inline void put_hex(char* at, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(16):
        at[15 - i] = b"0123456789abcdef"[value & 15]
        value >>= 4


cdef inline bint get_hex(const char* at, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef int i
    cdef char c
    for i in range(16):
        c = at[i]
        if c'0' <= c <= c'9':
            result = result * 16 + <uint64_t>(c - c'0')
        elif c'a' <= c <= c'f':
            result = result * 16 + <uint64_t>(c - c'a' + 10)
        else:
            return False
    value[0] = result
    return True


cdef inline void put_mark(char* at, uint64_t run, uint64_t number, uint64_t body) noexcept nogil:
    memcpy(at, b"X-Bench: ", 9)
    put_hex(at + 9, run)
    at[25] = c' '
    put_hex(at + 26, number)
    at[42] = c' '
    put_hex(at + 43, mark_check(run, number, body))
    memcpy(at + 59, b"\r\n", 2)


cdef inline bint get_mark(const char* at, uint64_t* run, uint64_t* number, uint64_t* check) noexcept nogil:
    # `at` points behind "X-Bench: "; 50 bytes are readable there.
    return get_hex(at, run) and get_hex(at + 17, number) and get_hex(at + 34, check)


def body_hash(bytes content) -> int:
    """The hash of the body of a message as on the wire: of all that follows the first empty line."""
    cdef BodyHash h
    cdef bytes body = content.partition(b"\r\n\r\n")[2]
    hash_start(&h)
    hash_update(&h, <const uint8_t*>body, <size_t>len(body))
    return hash_finish(&h)


def mark(uint64_t run, uint64_t number, uint64_t body) -> bytes:
    """The header field by which the sink checks message `number` of `run`, whose body has this hash."""
    cdef char field[MARK_LENGTH]
    put_mark(field, run, number, body)
    return field[:MARK_LENGTH]
