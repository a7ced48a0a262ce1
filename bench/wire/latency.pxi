# The latency histogram: logarithmic with linear sub-buckets (the layout of HdrHistogram), so that any latency
# from nanoseconds to hours is kept to better than 1 % in a few thousand counters. histogram.py reads it.

cdef extern from *:
    int __builtin_clzll(unsigned long long) nogil

cdef enum:
    SUB_BUCKETS = 128           # per power of two
    BUCKETS = 38 * 128          # up to 2^44 ns, five hours


cdef inline int bucket_of(int64_t latency_ns) noexcept nogil:
    cdef uint64_t ns = <uint64_t>max(latency_ns, 0)
    cdef int shift, index
    if ns < 2 * SUB_BUCKETS:
        return <int>ns
    shift = 63 - __builtin_clzll(ns) - 7
    index = (shift << 7) + <int>(ns >> shift)
    return min(index, BUCKETS - 1)


def bucket(int64_t latency_ns) -> int:
    """The histogram bucket that counts a latency of so many nanoseconds."""
    return bucket_of(latency_ns)
