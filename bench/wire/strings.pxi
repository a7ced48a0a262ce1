# Many byte strings back to back: a million recipients without a million objects, readable without the GIL.

from cpython.bytes cimport PyBytes_AS_STRING

cdef class Strings:
    cdef bytes blob
    cdef const char* data
    cdef size_t* ends
    cdef readonly size_t count

    def __cinit__(self, strings):
        cdef size_t i, end = 0
        self.blob = b"".join(strings)
        self.data = PyBytes_AS_STRING(self.blob)
        self.count = <size_t>len(strings)
        self.ends = <size_t*>malloc((self.count + 1) * sizeof(size_t))
        if self.ends == NULL:
            raise MemoryError
        self.ends[0] = 0
        for i in range(self.count):
            end += <size_t>len(strings[i])
            self.ends[i + 1] = end

    def __dealloc__(self):
        free(self.ends)

    cdef iovec range(self, uint64_t first, uint64_t last) noexcept nogil:
        """The strings from `first` up to, not including, `last` as one stretch of memory."""
        cdef iovec stretch
        stretch.iov_base = <void*>(self.data + self.ends[first])
        stretch.iov_len = self.ends[last] - self.ends[first]
        return stretch
