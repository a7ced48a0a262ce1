# What peers may do in a time, and how much of it they do now, in memory that processes share. RateCells: cells of the
# Generic Cell Rate Algorithm, which all processes write. HeldCells: who holds how many, a table for each process, which
# it alone writes and all add up. Both are bounded, and neither forgets a limit for want of room: whoever finds none
# shares a cell with all others like it.

from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from *:
    """
    #include <errno.h>
    #include <sched.h>
    #include <signal.h>
    #include <unistd.h>
    #include <sys/random.h>
    static inline int limits_swap(volatile uint32_t *p, uint32_t before, uint32_t after) {
        return __atomic_compare_exchange_n(p, &before, after, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline int limits_seed(volatile uint64_t *p, uint64_t value) {
        uint64_t none = 0;
        return __atomic_compare_exchange_n(p, &none, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    static inline uint32_t limits_load(volatile uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline int limits_is_gone(int64_t pid) { return kill((pid_t)pid, 0) < 0 && errno == ESRCH; }
    static inline void limits_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    """
    bint limits_swap(volatile uint32_t *p, uint32_t before, uint32_t after) noexcept nogil
    bint limits_seed(volatile uint64_t *p, uint64_t value) noexcept nogil
    uint32_t limits_load(volatile uint32_t *p) noexcept nogil
    void limits_fence() noexcept nogil
    bint limits_is_gone(int64_t pid) noexcept nogil
    int sched_yield() noexcept nogil
    int getpid() noexcept nogil
    ssize_t getrandom(void *buffer, size_t length, unsigned int flags) noexcept nogil

cdef enum:
    LIMIT_NAME = 47          # octets of a name that are kept, for people to read
    LIMIT_WAYS = 8           # cells of a set; one more is shared by those who find no room
    LIMIT_HEADER = 64        # octets before the sets
    LIMIT_PATIENCE = 20_000  # looks at a lock before its holder is taken to be dead or stopped: some milliseconds
    HELD_PROBES = 32

RATE_TAKE, RATE_CHARGE, RATE_LOOK = range(3)

cdef struct RateCell:
    uint64_t[2] key
    double unused_at   # when it would be as if nothing had happened
    double interval
    int64_t burst
    uint8_t length
    uint8_t[LIMIT_NAME] name

cdef struct RateSet:
    uint32_t lock      # the process that is at it, or 0
    uint32_t[15] unused
    RateCell[LIMIT_WAYS + 1] cells

cdef struct HeldCell:
    uint64_t[2] key
    int64_t count
    uint8_t length
    uint8_t[LIMIT_NAME] name

cdef class _SharedBuffer:
    """A writable buffer, for as long as somebody uses it."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, buffer, *_):
        PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held = True
        if <size_t>self.view.buf % 8:
            raise ValueError("a buffer that is aligned to 8 is needed")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


cdef int read_key(bytes key, uint64_t *words) except -1:
    if key is None or len(key) != 16:
        raise ValueError("a key has 16 octets")
    memcpy(words, octets_of(key), 16)
    words[0] = words[0] or 1  # 0 is a cell that was never used
    return 0


cdef uint8_t write_name(uint8_t *into, bytes name) noexcept:
    cdef Py_ssize_t n = min(len(name), LIMIT_NAME)
    memcpy(into, octets_of(name), n)
    return <uint8_t>n


cdef double monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


@cython.final
@cython.auto_pickle(False)
cdef class RateCells(_SharedBuffer):
    cdef RateSet *sets
    cdef uint64_t n
    cdef readonly Py_ssize_t shared

    def __init__(self, buffer):
        if self.view.len < LIMIT_HEADER + <Py_ssize_t>sizeof(RateSet):
            raise ValueError("no room for a single set")
        self.n = (self.view.len - LIMIT_HEADER) // sizeof(RateSet)
        self.sets = <RateSet *>(<uint8_t *>self.view.buf + LIMIT_HEADER)

    def seed(self):
        cdef volatile uint64_t *word = <volatile uint64_t *>self.view.buf
        cdef uint64_t value = 0
        while word[0] == 0:
            if getrandom(&value, sizeof(value), 0) == sizeof(value):
                limits_seed(word, value or 1)
        return word[0]

    def turn(
        self, bytes key, bytes name, double interval, int64_t burst, double now=-1.0, double amount=1.0, int mode=0
    ):
        """See _fastpath.pyi."""
        cdef uint64_t[2] words
        read_key(key, words)
        if name is None or not interval > 0 or burst < 1 or not amount >= 0:
            raise ValueError("a rate has an interval and a burst")
        if now < 0:
            now = monotonic()
        cdef RateSet *chosen = &self.sets[words[0] % self.n]
        cdef uint32_t us = getpid()
        lock_set(chosen, us)
        cdef RateCell *cell = self.cell_of(chosen, words, now)
        cdef double before = max(now, cell.unused_at)
        cdef double after = before + amount * interval
        cdef double tolerance = interval * burst
        cdef double too_soon = after - tolerance - now
        cdef bint refused = too_soon > interval * 1e-9 and mode != 1  # what rounding leaves is no time
        if mode == 1:
            after = min(after, now + 2 * tolerance)  # one message blocks nobody for longer than that
        if not refused and mode != 2:
            if cell is not &chosen.cells[LIMIT_WAYS]:
                cell.key[0], cell.key[1] = words[0], words[1]
                cell.length = write_name(cell.name, name)
            cell.interval, cell.burst = interval, burst
            cell.unused_at = after
        limits_swap(&chosen.lock, us, 0)  # unless it was taken from us
        if refused:
            return (0, before - now, too_soon)
        return (<int64_t>max(0.0, (tolerance - (after - now)) / interval + 1e-9), after - now, None)

    cdef RateCell *cell_of(self, RateSet *chosen, uint64_t *words, double now) noexcept:
        cdef RateCell *free = NULL
        cdef RateCell *cell
        cdef int i
        for i in range(LIMIT_WAYS):
            cell = &chosen.cells[i]
            if cell.key[0] == words[0] and cell.key[1] == words[1]:
                return cell
            if free is NULL and cell.unused_at <= now:
                free = cell
        if free is NULL:
            self.shared += 1
            return &chosen.cells[LIMIT_WAYS]
        free.unused_at = 0
        free.key[0] = 0
        return free

    def holders(self, double now=-1.0):
        """See _fastpath.pyi."""
        cdef RateCell *cell
        cdef uint64_t i
        cdef int way
        if now < 0:
            now = monotonic()
        found = []
        for i in range(self.n):
            for way in range(LIMIT_WAYS):
                cell = &self.sets[i].cells[way]
                if cell.unused_at > now and cell.interval > 0:
                    name = (<uint8_t *>cell.name)[:min(cell.length, LIMIT_NAME)]
                    found.append((name, cell.interval, cell.burst, cell.unused_at - now))
        return found


cdef void lock_set(RateSet *chosen, uint32_t us) noexcept nogil:
    """A process that was killed at it leaves its number behind: after a while it is passed over."""
    cdef uint32_t holder
    cdef int looks = 0
    while not limits_swap(&chosen.lock, 0, us):
        looks += 1
        if looks % 64 == 0:
            sched_yield()
        if looks > LIMIT_PATIENCE:
            holder = limits_load(&chosen.lock)
            if holder == 0 or limits_swap(&chosen.lock, holder, us):
                if holder:
                    return
            looks = 0


@cython.final
@cython.auto_pickle(False)
cdef class HeldCells(_SharedBuffer):
    cdef HeldCell *cells
    cdef uint64_t n          # without the last one, which those share who find no room
    cdef Py_ssize_t size     # octets of a process's table
    cdef readonly Py_ssize_t tables
    cdef readonly Py_ssize_t own

    def __init__(self, buffer, Py_ssize_t size, Py_ssize_t own):
        self.tables = self.view.len // size
        if size < 2 * <Py_ssize_t>sizeof(HeldCell) or size % 8 or not -1 <= own < self.tables:
            raise ValueError("no such table")
        self.size = size
        self.own = own
        self.n = size // sizeof(HeldCell) - 1
        if own >= 0:
            self.clear(own)
            self.owner(own)[0] = getpid()

    cdef uint64_t *owner(self, Py_ssize_t number) noexcept:
        """The process whose table that is: the shared cell needs no key."""
        return &self.table(number)[self.n].key[0]

    cdef void clear(self, Py_ssize_t number) noexcept:
        """Touches only what was used: the rest has taken no memory yet."""
        cdef HeldCell *cells = self.table(number)
        cdef uint64_t i
        for i in range(self.n + 1):
            if cells[i].count:
                cells[i].count = 0

    cdef bint bury(self) noexcept:
        """Forgets what processes held that are no more; whether there were any."""
        cdef Py_ssize_t number
        cdef bint found = False
        for number in range(self.tables):
            if self.owner(number)[0] and limits_is_gone(self.owner(number)[0]):
                self.owner(number)[0] = 0
                self.clear(number)
                found = True
        return found

    cdef HeldCell *table(self, Py_ssize_t number) noexcept:
        return <HeldCell *>(<uint8_t *>self.view.buf + number * self.size)

    cdef HeldCell *find(self, HeldCell *cells, uint64_t *words, bint make) noexcept:
        """The cell of a key; NULL, or where it may go: with `make`, there is always one."""
        cdef HeldCell *cell
        cdef HeldCell *free = NULL
        cdef uint64_t i
        for i in range(min(<uint64_t>HELD_PROBES, self.n)):
            cell = &cells[(words[0] + i) % self.n]
            if cell.key[0] == words[0] and cell.key[1] == words[1]:
                return cell
            if free is NULL and cell.count == 0:
                free = cell
            if cell.key[0] == 0:  # never used, and so is whatever would have gone behind it
                break
        if not make:
            return NULL
        return &cells[self.n] if free is NULL else free

    def hold(self, bytes key, bytes name, int64_t most):
        """See _fastpath.pyi."""
        cdef uint64_t[2] words
        cdef int attempt
        read_key(key, words)
        if self.own < 0:
            raise ValueError("this process has no table")
        cdef HeldCell *cell = self.find(self.table(self.own), words, True)
        cdef bint is_shared = cell is &self.table(self.own)[self.n]
        if not is_shared and (cell.key[0] != words[0] or cell.key[1] != words[1]):
            cell.length = write_name(cell.name, name)
            cell.key[1] = words[1]
            cell.key[0] = words[0]
        for attempt in range(8):
            cell.count += 1
            limits_fence()
            if self.total(words, is_shared) <= most:
                return 2 if is_shared else 1
            cell.count -= 1
            limits_fence()
            if self.total(words, is_shared) >= most and not self.bury():
                return 0
            sched_yield()  # somebody else tried at the same moment
        return 0

    def release(self, bytes key, int how):
        """See _fastpath.pyi."""
        cdef uint64_t[2] words
        read_key(key, words)
        cdef HeldCell *cell = &self.table(self.own)[self.n]
        if how == 1:
            cell = self.find(self.table(self.own), words, False)
        if cell is not NULL and cell.count > 0:
            cell.count -= 1

    cdef int64_t total(self, uint64_t *words, bint is_shared) noexcept:
        cdef int64_t count = 0
        cdef HeldCell *cell
        cdef Py_ssize_t number
        for number in range(self.tables):
            cell = self.find(self.table(number), words, False)
            if cell is not NULL:
                count += cell.count
            if is_shared:
                count += self.table(number)[self.n].count
        return count

    def count(self, bytes key):
        """See _fastpath.pyi."""
        cdef uint64_t[2] words
        read_key(key, words)
        return self.total(words, False)

    def holders(self):
        """See _fastpath.pyi."""
        cdef HeldCell *cell
        cdef uint64_t i
        cdef Py_ssize_t number
        found = {}
        for number in range(self.tables):
            for i in range(self.n):
                cell = &self.table(number)[i]
                if cell.count > 0:
                    name = (<uint8_t *>cell.name)[:min(cell.length, LIMIT_NAME)]
                    found[name] = found.get(name, 0) + cell.count
        return found
