# Which messages of which run arrived: a bit per sequence number, and counts.

cdef enum:
    MAX_RUNS = 4096
    MAX_WORDS = 1 << 22         # 2^28 messages of a run are told apart, in 32 MiB

cdef struct Run:
    uint64_t run
    uint64_t* seen
    uint64_t words
    int64_t messages            # arrivals, repeated ones too
    int64_t unique
    int64_t recipients
    int64_t corrupt             # arrivals whose body is not what was sent


cdef class Arrivals:
    cdef Run* runs
    cdef int count, latest

    def __cinit__(self):
        self.runs = <Run*>calloc(MAX_RUNS, sizeof(Run))
        if self.runs == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            free(self.runs[i].seen)
        free(self.runs)

    cdef Run* _run(self, uint64_t run) noexcept nogil:
        cdef int i
        if self.count and self.runs[self.latest].run == run:
            return &self.runs[self.latest]
        for i in range(self.count):
            if self.runs[i].run == run:
                self.latest = i
                return &self.runs[i]
        if self.count == MAX_RUNS:
            return NULL
        self.latest = self.count
        self.count += 1
        self.runs[self.latest].run = run
        return &self.runs[self.latest]

    cdef void add(self, uint64_t run, uint64_t number, int recipients, bint intact) noexcept nogil:
        cdef Run* r = self._run(run)
        cdef uint64_t word = number >> 6
        cdef uint64_t bit = <uint64_t>1 << (number & 63)
        cdef uint64_t size
        cdef uint64_t* seen
        if r == NULL or word >= MAX_WORDS:
            return
        r.messages += 1
        r.recipients += recipients
        if not intact:
            r.corrupt += 1
            return
        if word >= r.words:
            size = max(<uint64_t>1024, 2 * word)
            seen = <uint64_t*>realloc(r.seen, size * sizeof(uint64_t))
            if seen == NULL:
                return
            memset(seen + r.words, 0, (size - r.words) * sizeof(uint64_t))
            r.seen, r.words = seen, size
        if not r.seen[word] & bit:
            r.seen[word] |= bit
            r.unique += 1

    def as_dict(self) -> dict:
        return {
            self.runs[i].run: {
                "messages": self.runs[i].messages, "unique": self.runs[i].unique,
                "recipients": self.runs[i].recipients, "corrupt": self.runs[i].corrupt,
            }
            for i in range(self.count)
        }
