# Passing over octets in which nothing that is looked for can begin: as many at once as the processor can. What is
# looked for, parts.pxi knows.
#
# Such a loop is bound by how much it does with each octet, so it does little: it looks for what is rare and stands in
# each occurrence at a known distance from its beginning. That is one octet; or three, which make two pairs, and one of
# these is at an even place wherever the occurrence begins: pairs at odd places need not be looked at, half the work.
# Where the three are the same octet, so are the pairs, and it is half again.

from libc.stdint cimport uint16_t

cdef extern from *:
    """
    #ifdef __SSE2__
    #include <immintrin.h>
    #endif

    static int vector_octets;  /* that are compared at once: 32, 16, or 0 where there are no such instructions */

    static inline int most_vector_octets(void)
    {
    #ifdef __SSE2__
        return __builtin_cpu_supports("avx2") ? 32 : 16;
    #else
        return 0;
    #endif
    }

    /* Bit i of the result: the n octets from p + i on are `pattern`. Reads 63 + n octets. */
    static inline uint64_t find_in_block(const uint8_t *p, const char *pattern, int n)
    {
        uint64_t found = 0;
    #ifdef __SSE2__
        if (vector_octets) {
            for (int i = 0; i < 64; i += 16) {
                __m128i equal = _mm_set1_epi8(-1);
                for (int k = 0; k < n; k++) {
                    __m128i octets = _mm_loadu_si128((const __m128i *)(p + i + k));
                    equal = _mm_and_si128(equal, _mm_cmpeq_epi8(octets, _mm_set1_epi8(pattern[k])));
                }
                found |= (uint64_t)_mm_movemask_epi8(equal) << i;
            }
            return found;
        }
    #endif
        for (int i = 0; i < 64; i++)
            found |= (uint64_t)(memcmp(p + i, pattern, n) == 0) << i;
        return found;
    }

    /* Whether FOUND is true of a `here` in N octets from p on, octets beside each other, compared with `a` and `b`. */
    #define ANY_OF(N, VECTOR, MM, SI, FOUND) __extension__ ({                                   \\
            const size_t n = N;                                                                 \\
            VECTOR found = MM##_setzero_##SI();                                                 \\
            _Pragma("GCC unroll 16")                                                            \\
            for (size_t i = 0; i < n; i += sizeof(VECTOR)) {                                    \\
                const VECTOR here = MM##_loadu_##SI((const VECTOR *)(p + i));                   \\
                found = MM##_or_##SI(found, FOUND);                                             \\
            }                                                                                   \\
            MM##_movemask_epi8(found);                                                          \\
        })

    /* The loops. From p on in steps of 64, as long as that is before `stop`: on to 64 octets in which FOUND is. */
    #define SKIP(NAME, AT_ONCE, TARGET, VECTOR, MM, SI, SPLAT, FOUND)                           \\
        TARGET static const uint8_t *NAME(const uint8_t *p, const uint8_t *stop, int x, int y)  \\
        {                                                                                       \\
            const VECTOR a = MM##_set1_##SPLAT(x), b = MM##_set1_##SPLAT(y);                    \\
            while (AT_ONCE > 64 && stop - p >= AT_ONCE && !ANY_OF(AT_ONCE, VECTOR, MM, SI, FOUND)) \\
                p += AT_ONCE;                                                                   \\
            while (p < stop && !ANY_OF(64, VECTOR, MM, SI, FOUND))                              \\
                p += 64;                                                                        \\
            (void)a, (void)b;                                                                   \\
            return p;                                                                           \\
        }
    #define SKIPS(WIDTH, TARGET, VECTOR, MM, SI)                                                \\
        SKIP(skip_to_pair_##WIDTH, 256, TARGET, VECTOR, MM, SI, epi16, MM##_cmpeq_epi16(here, a))    \\
        SKIP(skip_to_pairs_##WIDTH, 256, TARGET, VECTOR, MM, SI, epi16,                              \\
             MM##_or_##SI(MM##_cmpeq_epi16(here, a), MM##_cmpeq_epi16(here, b)))                \\
        SKIP(skip_to_name_##WIDTH, 256, TARGET, VECTOR, MM, SI, epi8,                               \\
             dash_behind_##WIDTH(here, p + i, i % 64 && i + 64 < n))                            \\
        SKIP(skip_to_hi_##WIDTH, 64, TARGET, VECTOR, MM, SI, epi8,                                  \\
             MM##_or_##SI(                                                                      \\
                 MM##_and_##SI(MM##_cmpeq_epi8(here, a), MM##_cmpeq_epi8(MM##_set1_epi8('.'),   \\
                     MM##_loadu_##SI((const VECTOR *)(p + i + 2)))),                            \\
                 MM##_and_##SI(MM##_cmpeq_epi8(here, b), MM##_cmpeq_epi8(MM##_set1_epi8('k'),   \\
                     MM##_loadu_##SI((const VECTOR *)(p + i + 2))))))

    #ifdef __SSE2__
    /* Which of the octets at p, `here`, are a y as in delivery-status or a k as in feedback-report, or look like one
       here, and have a dash behind. Every other vector of what is behind would be loaded from two lines of the cache,
       which takes twice as long: where `more` may be read, it is put together from two vectors instead. */
    static inline __m128i dash_behind_16(__m128i here, const uint8_t *p, int more)
    {
        const __m128i next = _mm_loadu_si128((const __m128i *)(p + 1));
        (void)more;
        return _mm_and_si128(_mm_cmpeq_epi8(_mm_or_si128(here, _mm_set1_epi8(0x32)), _mm_set1_epi8('y' | 0x32)),
                             _mm_cmpeq_epi8(next, _mm_set1_epi8('-')));
    }
    __attribute__((target("avx2"))) static inline __m256i dash_behind_32(__m256i here, const uint8_t *p, int more)
    {
        /* What is to stand behind an octet, by the lower half of that. */
        const __m256i wanted = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, '-', -1, '-', -1, -1, -1, -1));
        const __m256i next = more
            ? _mm256_alignr_epi8(_mm256_permute2x128_si256(here, _mm256_loadu_si256((const __m256i *)(p + 32)), 0x21),
                                 here, 1)
            : _mm256_loadu_si256((const __m256i *)(p + 1));
        return _mm256_cmpeq_epi8(_mm256_shuffle_epi8(wanted, here), next);
    }
    #endif

    /* A line end at p, and behind it something that may_matter, or what is like it here: dash and asterisk are like CR
       and LF, and without AVX2 so are all of ()*+,-./ and of the control characters 0x08 to 0x0f. With it an x is to
       have an f, or so, as its third letter: X-Failed-Recipients is looked for, and many lines begin with an x. */
    #ifdef __SSE2__
    static inline __m128i begins_16(const uint8_t *p)
    {
        const __m128i next = _mm_or_si128(_mm_loadu_si128((const __m128i *)(p + 1)), _mm_set1_epi8(0x20));
        return _mm_or_si128(
            _mm_or_si128(_mm_cmpeq_epi8(next, _mm_set1_epi8('c')), _mm_cmpeq_epi8(next, _mm_set1_epi8('x'))),
            _mm_cmpeq_epi8(_mm_and_si128(next, _mm_set1_epi8((char)0xf8)), _mm_set1_epi8(0x28)));
    }
    __attribute__((target("avx2"))) static inline __m256i begins_32(const uint8_t *p)
    {
        /* By the lower half of an octet: the one that matters, with the bit that makes letters lower case; and by that
           of the third one, what the first is to be. */
        const __m256i wanted = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(-1, -1, -1, 'c', -1, -1, -1, -1, -1, -1, '\\n' | 0x20, -1, -1, '\\r' | 0x20, '.', -1));
        const __m256i in_front = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(-1, -1, -1, -1, -1, -1, 'x', -1, -1, -1, -1, -1, -1, -1, -1, -1));
        const __m256i next = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(p + 1)), _mm256_set1_epi8(0x20));
        const __m256i third = _mm256_loadu_si256((const __m256i *)(p + 3));
        return _mm256_or_si256(_mm256_cmpeq_epi8(_mm256_shuffle_epi8(wanted, next), next),
                               _mm256_cmpeq_epi8(_mm256_shuffle_epi8(in_front, third), next));
    }
    #endif
    #define SKIP_LINES(WIDTH, TARGET, VECTOR, MM, SI)                                           \\
        SKIP(skip_to_line_##WIDTH, 64, TARGET, VECTOR, MM, SI, epi8,                                \\
             MM##_and_##SI(MM##_cmpeq_epi8(here, a), begins_##WIDTH(p + i)))

    /* Bit i of the result: p[i] is the octet that `a` is full of. */
    #define OCTETS_OF_64(NAME, TARGET, VECTOR, MM, SI)                                          \\
        TARGET static inline uint64_t NAME(const uint8_t *p, VECTOR a)                          \\
        {                                                                                       \\
            uint64_t found = 0;                                                                 \\
            _Pragma("GCC unroll 4")                                                             \\
            for (size_t i = 0; i < 64; i += sizeof(VECTOR)) {                                   \\
                const VECTOR here = MM##_loadu_##SI((const VECTOR *)(p + i));                   \\
                found |= (uint64_t)(uint32_t)MM##_movemask_epi8(MM##_cmpeq_epi8(here, a)) << i; \\
            }                                                                                   \\
            return found;                                                                       \\
        }

    /* The first x from p on that is before `end`, or `end`. In which 64 of 256 octets it is, is told without a branch:
       no processor would foresee that one. */
    #define FIND_OCTET(WIDTH, TARGET, VECTOR, MM, SI)                                           \\
        OCTETS_OF_64(octets_of_64_##WIDTH, TARGET, VECTOR, MM, SI)                              \\
        TARGET static const uint8_t *find_octet_##WIDTH(const uint8_t *p, const uint8_t *end, int x) \\
        {                                                                                       \\
            const VECTOR a = MM##_set1_epi8(x);                                                 \\
            const uint8_t *const start = p;                                                     \\
            uint64_t found, earlier;                                                            \\
            p -= (size_t)p & 31;                                                                \\
            if (end - p >= 64) {                                                                \\
                found = octets_of_64_##WIDTH(p, a) & ~(uint64_t)0 << (start - p);               \\
                if (found)                                                                      \\
                    return p + __builtin_ctzll(found);                                          \\
                p += 64;                                                                        \\
            }                                                                                   \\
            while (end - p >= 256 && !ANY_OF(256, VECTOR, MM, SI, MM##_cmpeq_epi8(here, a)))    \\
                p += 256;                                                                       \\
            if (end - p >= 256) {                                                               \\
                const uint8_t *at = p + 192;                                                    \\
                found = octets_of_64_##WIDTH(at, a);                                            \\
                _Pragma("GCC unroll 3")                                                         \\
                for (int i = 128; i >= 0; i -= 64) {                                            \\
                    earlier = octets_of_64_##WIDTH(p + i, a);                                   \\
                    at = earlier ? p + i : at;                                                  \\
                    found = earlier ? earlier : found;                                          \\
                }                                                                               \\
                return at + __builtin_ctzll(found);                                             \\
            }                                                                                   \\
            for (; end - p >= 64; p += 64)                                                      \\
                if ((found = octets_of_64_##WIDTH(p, a)))                                       \\
                    return p + __builtin_ctzll(found);                                          \\
            return find_octet_0(p > start ? p : start, end, x);                                 \\
        }

    static inline const uint8_t *find_octet_0(const uint8_t *p, const uint8_t *end, int x)
    {
        const uint8_t *found = p < end ? memchr(p, x, end - p) : NULL;
        return found ? found : end;
    }

    #ifdef __SSE2__
    SKIP_LINES(16, , __m128i, _mm, si128)
    SKIP_LINES(32, __attribute__((target("avx2"))), __m256i, _mm256, si256)
    SKIPS(16, , __m128i, _mm, si128)
    SKIPS(32, __attribute__((target("avx2"))), __m256i, _mm256, si256)
    FIND_OCTET(16, , __m128i, _mm, si128)
    FIND_OCTET(32, __attribute__((target("avx2"))), __m256i, _mm256, si256)
    #define FIND_WITH(NAME, P, END, X) \\
        (vector_octets == 32 ? NAME##_32(P, END, X) : vector_octets ? NAME##_16(P, END, X) : NAME##_0(P, END, X))
    #define SKIP_WITH(NAME, P, STOP, X, Y) \\
        (vector_octets == 32 ? NAME##_32(P, STOP, X, Y) : vector_octets ? NAME##_16(P, STOP, X, Y) : (P))
    #else
    #define SKIP_WITH(NAME, P, STOP, X, Y) (P)
    #define FIND_WITH(NAME, P, END, X) NAME##_0(P, END, X)
    #endif

    typedef struct {
        int at;          /* how far behind the beginning of an occurrence is the octet, or what is loaded for pairs */
        int is_octet;
        uint16_t one;    /* the octet, or a pair, of which the first octet is the lower half */
        uint16_t other;  /* the other pair */
    } Rare;

    static inline uint16_t pair_of(const uint8_t *p)
    {
        return p[0] | p[1] << 8;
    }

    /* How common octets are in letters and their attachments, roughly. */
    static inline int commonness(uint8_t c)
    {
        static const uint8_t of[256] = {
            ['a' ... 'z'] = 8, ['A' ... 'Z'] = 3, ['0' ... '9'] = 3, [' '] = 12, ['+'] = 3, ['/'] = 4, ['='] = 3,
            ['\\r'] = 6, ['\\n'] = 6, ['-'] = 5, ['.'] = 4, [','] = 4, [':'] = 4, ['"'] = 4, ['\\''] = 3, ['('] = 2,
            [')'] = 2, ['?'] = 2, [';'] = 3, ['<'] = 4, ['>'] = 4,
        };
        return of[c];
    }

    /* The rarest of n octets, three at least, that an occurrence begins with: one of them, if one is rare and
       `octet_too`, or a pair. */
    static Rare rarest(const uint8_t *p, int n, int octet_too)
    {
        Rare rare = {0};
        int best = 1 << 30, at = 0;
        for (int i = 0; i < n && octet_too; i++)
            if (commonness(p[i]) == 0) {
                rare.at = i;
                rare.is_octet = 1;
                rare.one = p[i];
                return rare;
            }
        for (int i = 0; i + 2 < n && best > 20; i++) {
            int common = commonness(p[i + 1]) * (commonness(p[i]) + commonness(p[i + 2]));
            if (p[i] == p[i + 1] && p[i + 1] == p[i + 2])
                common = common / 2;
            if (common < best) {
                best = common;
                at = i;
            }
        }
        rare.at = at + 1;
        rare.one = pair_of(p + at);
        rare.other = pair_of(p + at + 1);
        return rare;
    }

    /* The first x from p on that is before `end`, or `end`. Reads up to 31 octets in front of p. */
    static inline const uint8_t *find_octet(const uint8_t *p, const uint8_t *end, uint8_t x)
    {
        return FIND_WITH(find_octet, p, end, x);
    }

    /* On to 64 octets from which on an occurrence of which the rarest is a pair may begin, from p on in steps of 64 and
       as long as that is before `stop`. Reads 64 octets behind rare->at. */
    static inline const uint8_t *skip_without(const uint8_t *p, const uint8_t *stop, const Rare *rare)
    {
        const uint8_t *at = p + rare->at;
        stop += rare->at;
        if (rare->one == rare->other)
            at = SKIP_WITH(skip_to_pair, at, stop, rare->one, 0);
        else
            at = SKIP_WITH(skip_to_pairs, at, stop, rare->one, rare->other);
        return at - rare->at;
    }

    /* How many octets stand in front of the first quotation mark, backslash or LF, 80 at most; reads so many. */
    static inline int octets_in_quotes(const uint8_t *p)
    {
        int n = 0;
    #ifdef __SSE2__
        for (; vector_octets && n < 80; n += 16) {
            const __m128i here = _mm_loadu_si128((const __m128i *)(p + n));
            const int found = _mm_movemask_epi8(_mm_or_si128(
                _mm_or_si128(_mm_cmpeq_epi8(here, _mm_set1_epi8('"')), _mm_cmpeq_epi8(here, _mm_set1_epi8('\\n'))),
                _mm_cmpeq_epi8(here, _mm_set1_epi8('\\\\'))));
            if (found)
                return n + __builtin_ctz(found);
        }
    #endif
        while (n < 80 && p[n] != '"' && p[n] != '\\n' && p[n] != '\\\\')
            n++;
        return n;
    }

    /* Whether a line of a header section that begins so may be one that is looked at; empty lines, and dots that may be
       stuffed, included. */
    static const uint8_t may_matter[256] = {
        ['c'] = 1, ['C'] = 1, ['x'] = 1, ['X'] = 1, ['.'] = 1, ['\\r'] = 1, ['\\n'] = 1
    };

    /* The same for a line end behind which something may_matter; reads 67 octets. */
    static inline const uint8_t *skip_to_line(const uint8_t *p, const uint8_t *stop)
    {
        return SKIP_WITH(skip_to_line, p, stop, '\\n', 0);
    }

    /* The same for what dash_behind() is true of; reads 65 octets. */
    static inline const uint8_t *skip_to_name(const uint8_t *p, const uint8_t *stop)
    {
        return SKIP_WITH(skip_to_name, p, stop, 0, 0);
    }

    /* The same for "H?." or "S?k"; reads 66 octets. */
    static inline const uint8_t *skip_to_hi(const uint8_t *p, const uint8_t *stop)
    {
        return SKIP_WITH(skip_to_hi, p, stop, 'H', 'S');
    }
    """
    ctypedef struct Rare:
        int at
        int is_octet
        uint8_t one
    int vector_octets
    int most_vector_octets() noexcept nogil
    uint64_t find_in_block(const uint8_t* p, const char* pattern, int n) noexcept nogil
    Rare rarest(const uint8_t* p, int n, int octet_too) noexcept nogil
    const uint8_t* find_octet(const uint8_t* p, const uint8_t* end, uint8_t x) noexcept nogil
    const uint8_t* skip_without(const uint8_t* p, const uint8_t* stop, const Rare* rare) noexcept nogil
    int octets_in_quotes(const uint8_t* p) noexcept nogil
    const uint8_t* may_matter
    const uint8_t* skip_to_line(const uint8_t* p, const uint8_t* stop) noexcept nogil
    const uint8_t* skip_to_name(const uint8_t* p, const uint8_t* stop) noexcept nogil
    const uint8_t* skip_to_hi(const uint8_t* p, const uint8_t* stop) noexcept nogil
    int lowest_bit "__builtin_ctzll"(uint64_t bits) noexcept nogil
