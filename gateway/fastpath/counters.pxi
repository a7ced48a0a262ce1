# Counters, gauges and histograms in memory that processes share: one page per process, 64-bit words, no locks. The
# classes' C attributes are declared in _fastpath.pxd. Only the page's owner writes; others read single words, which
# the machine reads and writes whole. What the words mean is laid out in gateway/metrics and is nothing this file
# knows.

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t

cdef enum:
    PAGE_PID, PAGE_WORKER, PAGE_GENERATION, PAGE_STATE, PAGE_HEARTBEAT  # the header's words
    PAGE_HEADER = 8
    MAX_BOUNDS = 32

PAGE_HEADER_WORDS = PAGE_HEADER


@cython.final
@cython.auto_pickle(False)
cdef class HistogramSlot:
    def __init__(self, Py_ssize_t first, bounds):
        if not 0 < len(bounds) <= MAX_BOUNDS:
            raise ValueError(f"a histogram has 1 to {MAX_BOUNDS} bounds, not {len(bounds)}")
        if list(bounds) != sorted(set(bounds)):
            raise ValueError("bounds must ascend")
        self.first = first
        self.n = len(bounds)
        for i, bound in enumerate(bounds):
            self.bounds[i] = bound


cdef inline int bucket_of(const double* bounds, int n, double value) noexcept nogil:
    # The first bound that is not below the value (Prometheus' `le`), n when there is none; NaN counts as above all.
    cdef int low = 0, high = n, middle
    while low < high:
        middle = (low + high) >> 1
        if value <= bounds[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@cython.final
cdef class CounterPage:
    def __cinit__(self, buffer):
        PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held = True
        if self.view.len < PAGE_HEADER * 8 or <size_t>self.view.buf % 8:
            raise ValueError(f"a page is a writable buffer of at least {PAGE_HEADER * 8} bytes, aligned to 8")
        self.header = <volatile Word*>self.view.buf
        self.words = self.header + PAGE_HEADER
        self.n = <size_t>self.view.len // 8 - PAGE_HEADER

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    def __len__(self):
        return self.n

    cdef int check(self, Py_ssize_t slot) except -1:
        if <size_t>slot >= self.n:
            raise IndexError(f"no slot {slot} in a page of {self.n}")
        return 0

    cpdef add(self, Py_ssize_t slot, int64_t n=1):
        self.check(slot)
        self.words[slot].i += n

    def set(self, Py_ssize_t slot, int64_t value):
        self.check(slot)
        self.words[slot].i = value

    def set_float(self, Py_ssize_t slot, double value):
        self.check(slot)
        self.words[slot].d = value

    def get(self, Py_ssize_t slot):
        self.check(slot)
        return self.words[slot].i

    def get_float(self, Py_ssize_t slot):
        self.check(slot)
        return self.words[slot].d

    cpdef observe(self, HistogramSlot histogram, double value):
        if histogram is None:
            raise TypeError("a histogram is needed")
        self.check(histogram.first)
        self.check(histogram.first + histogram.n + 1)
        cdef volatile Word* words = self.words + histogram.first
        words[bucket_of(histogram.bounds, histogram.n, value)].i += 1
        words[histogram.n + 1].d += value

    @property
    def pid(self):
        return self.header[PAGE_PID].i

    @pid.setter
    def pid(self, int64_t value):
        self.header[PAGE_PID].i = value

    @property
    def worker(self):
        return self.header[PAGE_WORKER].i

    @worker.setter
    def worker(self, int64_t value):
        self.header[PAGE_WORKER].i = value

    @property
    def generation(self):
        return self.header[PAGE_GENERATION].i

    @generation.setter
    def generation(self, int64_t value):
        self.header[PAGE_GENERATION].i = value

    @property
    def state(self):
        return self.header[PAGE_STATE].i

    @state.setter
    def state(self, int64_t value):
        self.header[PAGE_STATE].i = value

    @property
    def heartbeat(self):
        return self.header[PAGE_HEARTBEAT].d

    @heartbeat.setter
    def heartbeat(self, double value):
        self.header[PAGE_HEARTBEAT].d = value
