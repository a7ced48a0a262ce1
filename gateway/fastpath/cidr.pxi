# CidrSet: which peers may relay. A union of prefixes, compiled once into radix trees and then only looked up.
#
# A table is one block of memory: header, nodes, records. The records are the normalised prefixes in address order,
# each its length in one octet and then only the octets that length needs (4 for 192.0.2.0/24, 7 for 2001:db8::/48).
# The nodes are a level- and path-compressed tree (an LC-trie: S. Nilsson, G. Karlsson, "IP-address lookup using
# LC-tries", 1999) over small buckets of records. A branch skips the bits that all its records share and tests as many
# of the next ones at once as keep its children reasonably filled; so a set of a few prefixes is one bucket, and a
# million take two or three steps to one. What a lookup costs is cache misses: the nodes stay in the cache, one bucket
# is one miss.
#
# Skipped bits are not looked at on the way down. The prefixes of a set do not overlap, so a descent ends at the only
# bucket that can hold a prefix covering the address, and the comparison with its records decides.
#
# Prefix syntax and error texts are in cidr_text.pxi.

from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

from ipaddress import ip_address

cdef enum:
    BUCKET_RECORDS = 8       # more are slower to scan than another step down is
    BUCKET_OCTETS = 64       # a cache line, though not aligned to one

    # A branch gets at most this many child slots per child in use. With n prefixes there are fewer than n branches,
    # hence fewer than 2 n children: the tree of any set, hostile ones too, has at most 2 n times this + 1 nodes.
    SLOTS_PER_CHILD = 2
    RECORDS_PER_SLOT = 2     # at least, on average: more slots than that only make the nodes miss the cache
    MAX_STRIDE = 24

    RECORD_OVERREAD = 16     # records are compared as 16 octets, whatever their length

cdef struct Prefix:          # of a set being built
    uint64_t hi              # the address, left-aligned: IPv4 has its 32 bits at the top
    uint64_t lo
    uint32_t place           # offset of its record
    uint8_t length

cdef struct RadixNode:       # eight octets: eight nodes per cache line
    uint32_t value           # branch: number of its first child; bucket: offset of its first record
    uint16_t count           # bucket: number of records, 0 where no prefix begins with these bits
    uint8_t at               # branch: the first bit tested, 0 being the leftmost
    uint8_t stride           # branch: how many bits are tested; 0 marks a bucket

cdef struct Table:           # followed by the nodes, the root first, and the records
    uint32_t count           # number of records
    uint32_t records         # offset of the first

cdef struct Plan:            # a tree being built
    const Prefix *prefixes
    RadixNode *nodes
    size_t used

cdef extern from * nogil:
    int leading_zeros "__builtin_clzll" (unsigned long long) noexcept
    void prefetch "__builtin_prefetch" (const void *) noexcept


# --- lookup -----------------------------------------------------------------------------------------------

cdef inline uint64_t bits_at(uint64_t hi, uint64_t lo, unsigned int at, unsigned int count) noexcept nogil:
    """Bits `at` .. `at + count` (`count` not 0) of an address."""
    if at < 64:
        return ((hi << at) | (lo >> 1 >> (63 - at))) >> (64 - count)
    return (lo << (at - 64)) >> (64 - count)


cdef inline unsigned int common_bits(uint64_t a_hi, uint64_t a_lo, uint64_t b_hi, uint64_t b_lo) noexcept nogil:
    """How many leading bits two addresses share; 128 if they are equal."""
    if a_hi != b_hi:
        return leading_zeros(a_hi ^ b_hi)
    if a_lo != b_lo:
        return 64 + leading_zeros(a_lo ^ b_lo)
    return 128


cdef inline unsigned int record_size(unsigned int length) noexcept nogil:
    return 1 + ((length + 7) >> 3)


cdef inline const Table *table_of(bytes owner) noexcept:
    return <const Table *>PyBytes_AS_STRING(owner)


cdef bint covers(const Table *table, uint64_t hi, uint64_t lo) noexcept nogil:
    """Whether a prefix of the table covers the address; IPv4 is left-aligned in `hi`."""
    cdef const RadixNode *nodes = <const RadixNode *>(table + 1)
    cdef const RadixNode *node = nodes
    cdef const uint8_t *record
    cdef unsigned int i
    while node.stride:
        node = nodes + node.value + bits_at(hi, lo, node.at, node.stride)
    record = <const uint8_t *>table + table.records + node.value
    prefetch(record + BUCKET_OCTETS - 1)      # the bucket's other cache line, at the same time as the first
    for i in range(node.count):
        # Beyond its own octets a record reads as the ones that follow; the length keeps them out of it.
        if common_bits(hi, lo, load_be64(record + 1), load_be64(record + 9)) >= record[0]:
            return True
        record += record_size(record[0])
    return False


# --- construction -----------------------------------------------------------------------------------------

cdef int in_address_order(const void *left, const void *right) noexcept nogil:
    """For qsort: by address, a covering prefix before those it covers."""
    cdef const Prefix *a = <const Prefix *>left
    cdef const Prefix *b = <const Prefix *>right
    if a.hi != b.hi:
        return -1 if a.hi < b.hi else 1
    if a.lo != b.lo:
        return -1 if a.lo < b.lo else 1
    return <int>a.length - <int>b.length


cdef inline unsigned int shared(const Prefix *a, const Prefix *b) noexcept nogil:
    return common_bits(a.hi, a.lo, b.hi, b.lo)


cdef size_t normalise(Prefix *prefixes, size_t count) noexcept nogil:
    """Sort; drop covered prefixes; merge siblings, and the siblings this makes. Return how many are left."""
    cdef size_t kept = 0
    cdef size_t i
    qsort(prefixes, count, sizeof(Prefix), in_address_order)
    for i in range(count):
        if kept and shared(&prefixes[kept - 1], &prefixes[i]) >= prefixes[kept - 1].length:
            continue
        prefixes[kept] = prefixes[i]
        kept += 1
        while (
            kept > 1
            and prefixes[kept - 2].length == prefixes[kept - 1].length
            and shared(&prefixes[kept - 2], &prefixes[kept - 1]) + 1 == prefixes[kept - 1].length
        ):
            kept -= 1
            prefixes[kept - 1].length -= 1
    return kept


cdef unsigned int widest_stride(const Prefix *first, const Prefix *last, unsigned int at) noexcept nogil:
    """How many bits from `at` on a branch over first .. last should test at once."""
    cdef size_t parting[MAX_STRIDE]      # [n]: neighbours that share n bits from `at` on, and no more
    cdef size_t slots = (last - first + 1) // RECORDS_PER_SLOT + 2
    cdef size_t children = 1
    cdef unsigned int stride = 1
    cdef int bit
    memset(parting, 0, sizeof(parting))
    while first != last:
        bit = <int>(shared(first, first + 1) - at)
        if bit < MAX_STRIDE:
            parting[bit] += 1
        first += 1
    for bit in range(MAX_STRIDE):
        children += parting[bit]
        if parting[bit] and min(slots, children * SLOTS_PER_CHILD) >= <size_t>1 << (bit + 1):
            stride = bit + 1
    return stride


cdef void grow(Plan *plan, size_t place, size_t first, size_t end) noexcept nogil:
    """Make node `place` the tree of prefixes first .. end, at least one. Recursion: at most one level per bit."""
    cdef const Prefix *prefix = &plan.prefixes[first]
    cdef const Prefix *last = &plan.prefixes[end - 1]
    cdef RadixNode *node = &plan.nodes[place]
    cdef size_t base = plan.used
    cdef size_t child, beyond, i
    if end - first <= BUCKET_RECORDS and last.place + record_size(last.length) - prefix.place <= BUCKET_OCTETS:
        node.value = prefix.place
        node.count = <uint16_t>(end - first)
        return
    node.value = <uint32_t>base
    node.at = shared(prefix, last)
    node.stride = widest_stride(prefix, last, node.at)
    plan.used += <size_t>1 << node.stride
    while first < end:
        prefix = &plan.prefixes[first]
        child = base + bits_at(prefix.hi, prefix.lo, node.at, node.stride)
        beyond = first + 1
        while beyond < end and shared(prefix, &plan.prefixes[beyond]) >= node.at + node.stride:
            beyond += 1
        grow(plan, child, first, beyond)
        if prefix.length < node.at + node.stride:     # it ends within these bits: alone in a row of children
            for i in range(1, <size_t>1 << (node.at + node.stride - prefix.length)):
                plan.nodes[child + i] = plan.nodes[child]
        first = beyond


cdef inline uint64_t leading(uint64_t word, int count) noexcept nogil:
    """A word reduced to its first `count` bits; 0 if `count` is not positive, all of it from 64 on."""
    if count <= 0:
        return 0
    return word if count >= 64 else word >> (64 - count) << (64 - count)


cdef inline void clear_host_bits(Prefix *prefix) noexcept nogil:
    prefix.hi = leading(prefix.hi, prefix.length)
    prefix.lo = leading(prefix.lo, prefix.length - 64)


cdef void write_record(uint8_t *record, const Prefix *prefix) noexcept nogil:
    cdef unsigned int i
    record[0] = prefix.length
    for i in range(1, record_size(prefix.length)):
        record[i] = bits_at(prefix.hi, prefix.lo, 8 * (i - 1), 8)


cdef void read_record(const uint8_t *record, Prefix *prefix) noexcept nogil:
    prefix.length = record[0]
    prefix.hi = load_be64(record + 1)
    prefix.lo = load_be64(record + 9)
    clear_host_bits(prefix)


cdef size_t place_records(Prefix *prefixes, size_t count) noexcept nogil:
    """Decide where each record goes, counted from the first. Return the size of all."""
    cdef size_t size = 0
    cdef size_t i
    for i in range(count):
        prefixes[i].place = <uint32_t>size
        size += record_size(prefixes[i].length)
    return size


cdef bytes compiled(Prefix *prefixes, size_t count):
    """A table of `count` prefixes, in any order, which are changed on the way."""
    cdef Plan plan
    cdef bytes table
    cdef size_t records_size, i
    cdef uint8_t *record
    cdef Table *header
    count = normalise(prefixes, count)
    records_size = place_records(prefixes, count)
    plan.prefixes = prefixes
    plan.used = 1
    plan.nodes = <RadixNode *>calloc(2 * SLOTS_PER_CHILD * count + 1, sizeof(RadixNode))
    if plan.nodes == NULL:
        raise MemoryError
    try:
        if count:
            grow(&plan, 0, 0, count)
        table = PyBytes_FromStringAndSize(
            NULL, sizeof(Table) + plan.used * sizeof(RadixNode) + records_size + RECORD_OVERREAD
        )
        header = <Table *>PyBytes_AS_STRING(table)
        header.count = <uint32_t>count
        header.records = sizeof(Table) + plan.used * sizeof(RadixNode)
        memcpy(header + 1, plan.nodes, plan.used * sizeof(RadixNode))
    finally:
        free(plan.nodes)
    record = <uint8_t *>header + header.records
    for i in range(count):
        write_record(record + prefixes[i].place, &prefixes[i])
    memset(record + records_size, 0, RECORD_OVERREAD)
    return table


# --- the set ----------------------------------------------------------------------------------------------

cdef bint is_any(const Table *ipv4, const Table *ipv6) noexcept:
    """Whether both tables are one record of length 0."""
    return (
        ipv4.count == 1 and (<const uint8_t *>ipv4)[ipv4.records] == 0
        and ipv6.count == 1 and (<const uint8_t *>ipv6)[ipv6.records] == 0
    )


cdef list prefix_texts(const Table *table, bint is_ipv6):
    cdef list texts = []
    cdef const uint8_t *record = <const uint8_t *>table + table.records
    cdef Prefix prefix
    for _ in range(table.count):
        read_record(record, &prefix)
        texts.append(prefix_text(&prefix, is_ipv6))
        record += record_size(prefix.length)
    return texts


class CidrError(ValueError):
    """One or more entries of a CIDR list cannot be understood; `problems` has a sentence for each."""

    def __init__(self, problems):
        super().__init__(problems)
        self.problems = problems

    def __str__(self):
        return ", ".join(self.problems)


@cython.final
cdef class CidrSet:
    # Bytes objects own the tables: immutable, comparable, hashable, and nothing to free here.
    cdef bytes _ipv4
    cdef bytes _ipv6

    def __cinit__(self, prefixes=()):
        cdef Prefix *ipv4 = NULL
        cdef Prefix *ipv6 = NULL
        cdef size_t ipv4_count, ipv6_count
        if isinstance(prefixes, (str, bytes)):
            raise TypeError("CidrSet takes an iterable of strings, not one string")
        entries = list(prefixes)
        try:
            ipv4 = <Prefix *>malloc((len(entries) + 1) * sizeof(Prefix))
            ipv6 = <Prefix *>malloc((len(entries) + 1) * sizeof(Prefix))
            if ipv4 == NULL or ipv6 == NULL:
                raise MemoryError
            read_entries(entries, ipv4, &ipv4_count, ipv6, &ipv6_count)
            self._ipv4 = compiled(ipv4, ipv4_count)
            self._ipv6 = compiled(ipv6, ipv6_count)
        finally:
            free(ipv4)
            free(ipv6)

    def __contains__(self, bytes packed not None):
        cdef const uint8_t *octets = octets_of(packed)
        cdef uint64_t hi, lo
        if PyBytes_GET_SIZE(packed) == 4:
            return covers(table_of(self._ipv4), <uint64_t>load_be32(octets) << 32, 0)
        if PyBytes_GET_SIZE(packed) != 16:
            return False
        hi = load_be64(octets)
        lo = load_be64(octets + 8)
        if is_ipv4_mapped(hi, lo):
            return covers(table_of(self._ipv4), lo << 32, 0)
        return covers(table_of(self._ipv6), hi, lo)

    def contains_text(self, str address not None):
        return ip_address(address).packed in self

    def __iter__(self):
        if is_any(table_of(self._ipv4), table_of(self._ipv6)):
            return iter(("any",))
        return iter(prefix_texts(table_of(self._ipv4), False) + prefix_texts(table_of(self._ipv6), True))

    def __len__(self):
        if is_any(table_of(self._ipv4), table_of(self._ipv6)):
            return 1
        return table_of(self._ipv4).count + table_of(self._ipv6).count

    def __eq__(self, other):
        cdef CidrSet that
        if not isinstance(other, CidrSet):
            return NotImplemented
        that = other
        return self._ipv4 == that._ipv4 and self._ipv6 == that._ipv6

    def __hash__(self):
        return hash((self._ipv4, self._ipv6))

    def __repr__(self):
        return f"CidrSet({list(self)!r})"

    def __reduce__(self):
        return CidrSet, (list(self),)

    @property
    def memory_bytes(self):
        return len(self._ipv4) + len(self._ipv6)
