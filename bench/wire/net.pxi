# What the load source and the sink need of libc: sockets, epoll, clocks. No protocol, no Python objects.

from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memset, strlen
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close, read, write

cdef extern from "<string.h>" nogil:
    void* memmem(const void* haystack, size_t haystack_length, const void* needle, size_t needle_length)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char* a, const char* b, size_t n)

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct linger:
        int l_onoff
        int l_linger
    int SOCK_STREAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_LINGER
    int socket(int domain, int kind, int protocol)
    int connect(int fd, const sockaddr* address, socklen_t length)
    int accept4(int fd, sockaddr* address, socklen_t* length, int flags)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t length)

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t writev(int fd, const iovec* vectors, int count)

cdef extern from "<sys/epoll.h>" nogil:
    cdef union epoll_data:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data data
    uint32_t EPOLLIN
    uint32_t EPOLLOUT
    uint32_t EPOLLERR
    uint32_t EPOLLHUP
    int EPOLL_CTL_ADD
    int EPOLL_CTL_MOD
    int EPOLL_CTL_DEL
    int EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int operation, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int size, int timeout)

cdef extern from "<sys/timerfd.h>" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int TFD_NONBLOCK
    int TFD_CLOEXEC
    int TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec* new, itimerspec* old)

cdef enum:
    EVENTS = 512            # epoll events taken at a time
    READ_BUFFER = 262144    # one buffer shared by all connections: what is read is used at once


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef inline void watch(int epoll, int operation, int fd, uint32_t events, uint64_t tag) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = tag
    epoll_ctl(epoll, operation, fd, &event)


cdef inline void set_nodelay(int fd) noexcept nogil:
    cdef int on = 1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))


cdef inline void arm_timer(int timer, int64_t at_ns) noexcept nogil:
    cdef itimerspec spec
    memset(&spec, 0, sizeof(spec))
    spec.it_value.tv_sec = at_ns // 1000000000
    spec.it_value.tv_nsec = at_ns % 1000000000
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &spec, NULL)
