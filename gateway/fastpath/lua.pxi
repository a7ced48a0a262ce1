# Limits on Lua code that runs: an allocator that says no, and a hook that ends what runs too long. Nothing happens per
# instruction: the hook is set, by another thread, only on code that has overrun (lua_sethook may be called at any
# time), and the allocator compares two numbers.
#
# What Lua gets no memory for, it raises as an error, by a jump. Where the GIL is held, Python code is between here and
# the place that the jump goes to, so there the allocator never says no; it does so when Lua code runs again.
#
# Functions of Lua are known by their addresses: lupa brings Lua along, without its declarations.

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport strncpy

cdef extern from "Python.h":
    int PyGILState_Check() nogil

cdef enum:
    LUA_MASKCOUNT = 8
    HOOK_COUNT = 1000       # instructions until the hook runs, once it is set
    GRACE = 1024 * 1024     # octets for the handling of the error
    PLACE = 256
    MOST_STATES = 256       # coroutines within each other; Lua itself allows fewer
    NO_LIMIT = -1

ctypedef void (*LuaHook)(void *state, void *record) noexcept nogil
ctypedef void *(*LuaAllocator)(void *data, void *block, size_t old, size_t new) noexcept nogil
ctypedef void (*SetHook)(void *state, LuaHook hook, int mask, int count) noexcept nogil
ctypedef void (*SetAllocator)(void *state, LuaAllocator allocator, void *data) noexcept nogil
ctypedef LuaAllocator (*GetAllocator)(void *state, void **data) noexcept nogil
ctypedef void (*Where)(void *state, int level) noexcept nogil
ctypedef const char *(*PushString)(void *state, const char *text) noexcept nogil
ctypedef const char *(*ToString)(void *state, int place, size_t *size) noexcept nogil
ctypedef void (*SetTop)(void *state, int top) noexcept nogil
ctypedef int (*RaiseError)(void *state) noexcept nogil

cdef struct Watched:
    size_t used, limit
    bint exceeded           # the allocator said no
    bint overdue            # the hook is to end what runs
    char place[PLACE]       # where it did
    int depth
    void *states[MOST_STATES]
    SetHook set_hook
    Where where
    PushString push_string
    ToString to_string
    SetTop set_top
    RaiseError raise_error

cdef GetAllocator get_allocator = NULL  # the same for all states: there is one Lua


cdef void *limited(void *data, void *block, size_t old, size_t new) noexcept nogil:
    cdef Watched *watched = <Watched *> data
    cdef void *result
    if block == NULL:
        old = 0  # then it is a kind of object
    if new == 0:
        watched.used -= old
        free(block)
        return NULL
    if new > old and watched.used + (new - old) > watched.limit and not PyGILState_Check():
        if not watched.exceeded:
            watched.exceeded = True
            watched.limit += GRACE
        return NULL
    result = realloc(block, new)
    if result != NULL:
        watched.used += new - old
    return result


cdef void end_it(void *state, void *record) noexcept nogil:
    cdef void *data = NULL
    get_allocator(state, &data)
    cdef Watched *watched = <Watched *> data
    if not watched.overdue:
        watched.set_hook(state, NULL, 0, 0)
        return
    watched.where(state, 0)
    if not watched.place[0]:
        strncpy(watched.place, watched.to_string(state, -1, NULL), PLACE - 1)
    watched.set_top(state, -2)
    # Lua takes an error with this text for its own, for which no message handler is called: those run without hooks.
    watched.push_string(state, b"not enough memory")
    watched.raise_error(state)


@cython.final
@cython.auto_pickle(False)
cdef class LuaLimits:
    cdef Watched *watched   # never freed: the state is closed at a time that nobody knows
    cdef readonly unsigned long serial
    cdef readonly bint running

    def __cinit__(self):
        self.watched = <Watched *> calloc(1, sizeof(Watched))
        if self.watched == NULL:
            raise MemoryError
        self.watched.limit = <size_t> NO_LIMIT

    def __init__(self, dict functions, uintptr_t state, size_t used):
        global get_allocator
        get_allocator = <GetAllocator> <uintptr_t> functions["lua_getallocf"]
        self.watched.set_hook = <SetHook> <uintptr_t> functions["lua_sethook"]
        self.watched.where = <Where> <uintptr_t> functions["luaL_where"]
        self.watched.push_string = <PushString> <uintptr_t> functions["lua_pushstring"]
        self.watched.to_string = <ToString> <uintptr_t> functions["lua_tolstring"]
        self.watched.set_top = <SetTop> <uintptr_t> functions["lua_settop"]
        self.watched.raise_error = <RaiseError> <uintptr_t> functions["lua_error"]
        self.watched.used = used
        (<SetAllocator> <uintptr_t> functions["lua_setallocf"])(<void *> state, limited, self.watched)

    @property
    def used(self):
        return self.watched.used

    @property
    def exceeded(self):
        return self.watched.exceeded

    @property
    def overdue(self):
        return self.watched.overdue

    @property
    def place(self):
        return self.watched.place

    def begin(self, Py_ssize_t memory, uintptr_t state):
        self.serial += 1
        self.running = True
        self.watched.exceeded = self.watched.overdue = False
        self.watched.place[0] = 0
        self.watched.limit = <size_t> NO_LIMIT if memory < 0 else self.watched.used + <size_t> memory
        self.watched.states[0] = <void *> state
        self.watched.depth = 1

    def end(self):
        cdef bint overdue = self.watched.overdue
        self.running = False
        self.watched.limit = <size_t> NO_LIMIT
        self.watched.overdue = False  # whoever has kept the hook loses it when it runs
        self.watched.depth = 0
        return overdue

    def enter(self, uintptr_t state):
        if self.watched.depth < MOST_STATES:
            self.watched.states[self.watched.depth] = <void *> state
            if self.watched.overdue:
                self.watched.set_hook(<void *> state, end_it, LUA_MASKCOUNT, HOOK_COUNT)
        self.watched.depth += 1

    def leave(self):
        if self.watched.depth > 0:
            self.watched.depth -= 1

    def stop(self):
        cdef int i
        if not self.running:
            return
        self.watched.overdue = True
        for i in range(min(self.watched.depth, <int> MOST_STATES)):
            self.watched.set_hook(self.watched.states[i], end_it, LUA_MASKCOUNT, HOOK_COUNT)
