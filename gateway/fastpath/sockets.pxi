# System calls on the descriptors of TCP sockets that never block, and the epoll set that says which of them are ready.
# The GIL is kept: not one of these calls waits. Nothing here knows what a connection is; that is net/streams.py.

from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memset

cdef extern from "<arpa/inet.h>" nogil:
    enum: INET6_ADDRSTRLEN
    int AF_INET
    struct sockaddr:
        pass
    struct sockaddr_in:
        uint32_t sin_addr
        unsigned short sin_port
    struct sockaddr_in6:
        uint8_t sin6_addr
        unsigned short sin6_port
    struct sockaddr_storage:
        int ss_family
    const char *inet_ntop(int, const void *, char *, size_t)
    unsigned short ntohs(unsigned short)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL, MSG_PEEK, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    int accept4(int, sockaddr *, unsigned int *, int)
    int c_getsockname "getsockname" (int, sockaddr *, unsigned int *)
    ssize_t c_recv "recv" (int, void *, size_t, int)
    ssize_t c_send "send" (int, const void *, size_t, int)
    ssize_t sendmsg(int, const msghdr *, int)
    int c_shutdown "shutdown" (int, int)

cdef extern from "<sys/epoll.h>" nogil:
    enum: EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)

cdef extern from "<unistd.h>" nogil:
    int c_close "close" (int)

cdef enum:
    MOST_RECEIVED = 128 * 1024  # octets at a time: also what a client that pipelines and does not read may hold
    MOST_CHUNKS = 1024  # at a time; Linux' IOV_MAX

cdef char received[MOST_RECEIVED]


cpdef tuple accept(int fd):
    cdef sockaddr_storage address
    cdef unsigned int size = sizeof(address)
    cdef int accepted = accept4(fd, <sockaddr *>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if accepted < 0:
        if errno == EAGAIN or errno == EINTR:
            return None
        PyErr_SetFromErrno(OSError)
    if was_reset(accepted):
        c_close(accepted)
        return ()
    return accepted, python_address(&address)


cdef bint was_reset(int fd):
    """Linux hands out connections that their peers have reset meanwhile. Nobody makes a session for each of a flood."""
    cdef char octet
    return c_recv(fd, &octet, 1, MSG_PEEK) < 0 and errno != EAGAIN and errno != EINTR


cpdef tuple local_address(int fd):
    cdef sockaddr_storage address
    cdef unsigned int size = sizeof(address)
    if c_getsockname(fd, <sockaddr *>&address, &size) < 0:
        PyErr_SetFromErrno(OSError)
    return python_address(&address)


cdef tuple python_address(const sockaddr_storage *address):
    """(host, port). The scope of a link-local address is left out: nobody looks at it."""
    cdef char host[INET6_ADDRSTRLEN]
    cdef const sockaddr_in *v4 = <const sockaddr_in *>address
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *>address
    if address.ss_family == AF_INET:
        return dotted(<const uint8_t *>&v4.sin_addr), ntohs(v4.sin_port)
    inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host))
    return host.decode("ascii"), ntohs(v6.sin6_port)


cdef str dotted(const uint8_t *ipv4):
    """Four octets as text. inet_ntop would take ten times as long, with snprintf."""
    cdef char text[16]
    cdef int n = 0, i
    for i in range(4):
        if ipv4[i] >= 100:
            text[n] = c'0' + ipv4[i] // 100
            n += 1
        if ipv4[i] >= 10:
            text[n] = c'0' + ipv4[i] // 10 % 10
            n += 1
        text[n] = c'0' + ipv4[i] % 10
        text[n + 1] = c'.'
        n += 2
    return text[:n - 1].decode("ascii")


cpdef bytes receive(int fd):
    cdef ssize_t n = c_recv(fd, received, MOST_RECEIVED, 0)
    if n < 0:
        if errno == EAGAIN or errno == EINTR:
            return None
        PyErr_SetFromErrno(OSError)
    return PyBytes_FromStringAndSize(received, n)


cpdef Py_ssize_t send(int fd, bytes data) except -1:
    return taken(c_send(fd, octets_of(data), PyBytes_GET_SIZE(data), MSG_NOSIGNAL))


cpdef Py_ssize_t send_chunks(int fd, list chunks, Py_ssize_t start) except -1:
    cdef iovec vector[MOST_CHUNKS]
    cdef msghdr message
    cdef Py_ssize_t n = min(len(chunks), MOST_CHUNKS), i
    cdef bytes chunk
    for i in range(n):
        chunk = chunks[i]
        vector[i] = iovec(<void *>octets_of(chunk), PyBytes_GET_SIZE(chunk))
    if n:
        if not 0 <= start <= <Py_ssize_t>vector[0].iov_len:
            raise ValueError("start is not within the first chunk")
        vector[0].iov_base = <char *>vector[0].iov_base + start
        vector[0].iov_len -= start
    memset(&message, 0, sizeof(message))
    message.msg_iov = vector
    message.msg_iovlen = n
    return taken(sendmsg(fd, &message, MSG_NOSIGNAL))


cdef inline Py_ssize_t taken(ssize_t n) except -1:
    """What a system call that sends has returned, 0 where the kernel has no room."""
    if n < 0:
        if errno == EAGAIN or errno == EINTR:
            return 0
        PyErr_SetFromErrno(OSError)
    return n


cpdef int shut_down(int fd) except -1:
    if c_shutdown(fd, SHUT_WR) < 0:
        PyErr_SetFromErrno(OSError)
    return 0


cpdef void close(int fd):
    c_close(fd)


@cython.final
@cython.auto_pickle(False)
cdef class Epoll:
    def __cinit__(self):
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            PyErr_SetFromErrno(OSError)

    def __dealloc__(self):
        self.close()

    def fileno(self):
        return self.fd

    cpdef watch(self, int fd, bint read, bint write, bint known):
        cdef epoll_event event
        event.events = (<uint32_t>EPOLLIN if read else 0) | (<uint32_t>EPOLLOUT if write else 0)
        event.data.fd = fd
        if epoll_ctl(self.fd, EPOLL_CTL_MOD if known else EPOLL_CTL_ADD, fd, &event) < 0:
            PyErr_SetFromErrno(OSError)

    cpdef forget(self, int fd):
        cdef epoll_event ignored
        if epoll_ctl(self.fd, EPOLL_CTL_DEL, fd, &ignored) < 0:
            PyErr_SetFromErrno(OSError)

    cpdef int wait(self) except -1:
        self.ready = epoll_wait(self.fd, self.events, MOST_EVENTS, 0)
        if self.ready < 0:
            self.ready = 0
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
        return self.ready

    cpdef int descriptor(self, int place) except -1:
        self.check(place)
        return self.events[place].data.fd

    cpdef bint readable(self, int place) except -1:
        self.check(place)
        return self.events[place].events & ~<uint32_t>EPOLLOUT != 0  # an error or a hang-up shows when one reads

    cpdef bint writable(self, int place) except -1:
        self.check(place)
        return self.events[place].events & ~<uint32_t>EPOLLIN != 0  # or writes

    cdef int check(self, int place) except -1:
        if not 0 <= place < self.ready:
            raise IndexError(f"no event {place} of {self.ready}")
        return 0

    cpdef close(self):
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1
