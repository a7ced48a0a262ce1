"""Builds the compiled modules: the gateway's own, and those of the bench suite, which shares no code with it.

Everything else about the packages is in pyproject.toml. RELAY_GATEWAY_MODULES=gateway leaves the bench suite's out:
only `relay-gateway bench` and the tests need them, and `make run` does not wait for them. RELAY_GATEWAY_MODULES=none
compiles nothing: an editable install would compile everything again that was just built in place.
RELAY_GATEWAY_BUILD=quick is for who tries a checkout or works on it: three fifths of the compiler's time, and a
sixteenth more instructions for a message. What is shipped, and what the bench measures, is built without it.
"""

import gc
import multiprocessing
import os
import subprocess
from collections.abc import Iterable
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Plain Python modules that every command or message passes through: those with a .pxd beside them, which gives the C
# types of their fields. They are compiled as they are, and behave the same uncompiled, only slower.
TYPED = sorted(
    path.removesuffix(".pxd")
    for path in glob("gateway/**/*.pxd", recursive=True)
    if os.path.exists(f"{path.removesuffix('.pxd')}.py")
)

SHARED = "gateway/_shared"  # what Cython needs in every module, made by it

# What was compiled here while a module still had its .pxd would be imported instead of the module as it is now.
for built in glob("gateway/**/*.so", recursive=True):
    if built.partition(".")[0] not in (*TYPED, "gateway/_fastpath", SHARED):
        os.remove(built)

MODULES = os.environ.get("RELAY_GATEWAY_MODULES", "all")
ONLY_GATEWAY = MODULES == "gateway"
QUICK = os.environ.get("RELAY_GATEWAY_BUILD") == "quick"
JOBS = os.cpu_count() or 1
# Cython's helpers inherit this process. With another start method, the default since Python 3.14, each would run this
# file again.
multiprocessing.set_start_method("fork", force=True)
# For all: what only a debugger reads, a quarter of a compiler's time, is left out. What Cython marks as running once,
# as the module is imported, is not optimised. The interpreter is called through its address, not through a stub.
FLAGS = ["-g0", "-fno-asynchronous-unwind-tables", "-fno-plt"]
ONCE = [("CYTHON_SMALL_CODE", '__attribute__((cold, optimize("O0")))')]
UNREAD = "-Wno-all"  # Python asks for warnings; those of what Cython writes cost passes, and nobody reads them
SHIPPED_FLAGS = [*FLAGS, UNREAD, "-O2"]

# All from here to the kernels is about quick builds.
# What costs a compiler time and gains what Cython writes next to nothing: most of it is calls into the interpreter, of
# which no compiler knows what they change.
LITTLE_GAIN = [
    "-fno-ipa-modref",
    "-fno-ipa-profile",
    "-fno-ipa-pure-const",
    "-fno-ipa-reference",
    "-fno-tree-dse",
    "-fno-tree-pta",
    "-fno-tree-sink",
    "-fno-tree-slsr",
    "-fno-tree-sra",
]
# What every message passes through.
HOT_FLAGS = [*FLAGS, UNREAD, "-O1", *LITTLE_GAIN]
# These three save a message less than a hundredth of its instructions, and take a sixth of the compiler's time; only
# answers from the cache, which are short, gain by them.
HASTY = ["-fno-tree-ccp", "-fno-tree-dominator-opts", "-fno-tree-fre"]
OF_THE_CACHE = ("gateway/policy/decision_cache", "gateway/policy/decisions")
HOT = (
    "gateway/couriers/couriers",
    "gateway/couriers/fleet/connection",
    "gateway/couriers/fleet/courier",
    "gateway/couriers/fleet/fleet",
    "gateway/couriers/fleet/job",
    "gateway/couriers/fleet/lane",
    "gateway/delivery/journal",
    "gateway/delivery/routing",
    "gateway/delivery/transaction",
    "gateway/handover",
    "gateway/inbound/connection",
    "gateway/inbound/facts",
    "gateway/inbound/reception",
    "gateway/later",
    "gateway/logs/encoding",
    "gateway/logs/identity",
    "gateway/logs/records",
    "gateway/mail/message",
    "gateway/net/outbox",
    "gateway/net/streams",
    "gateway/policy/configurations",
    "gateway/policy/conn_meta",
    "gateway/policy/decision_cache",
    "gateway/policy/decisions",
    "gateway/policy/engine",
    "gateway/policy/runs",
    "gateway/smtp/client",
    "gateway/smtp/commands",
    "gateway/smtp/exchange",
    "gateway/smtp/replies",
    "gateway/smtp/session",
    "gateway/smtp/trace",
)
# The others, which work by the connection, the batch or the report, or have little to do: two thirds of the time.
COLD_FLAGS = [*FLAGS, UNREAD, "-Og"]
# These run when a session or a connection to a member begins, or somebody is refused: another third less.
SELDOM_FLAGS = [*FLAGS, UNREAD, "-O0"]
SELDOM = (
    "gateway/couriers/courier",
    "gateway/couriers/fleet/wiring",
    "gateway/delivery/services",
    "gateway/inbound/allowance",
    "gateway/inbound/arrival",
    "gateway/inbound/refusals",
    "gateway/net/endpoints",
    "gateway/net/roster",
    "gateway/quotas",
    "gateway/smtp/lmtp",
    "gateway/smtp/rewriting",
    "gateway/smtp/terms",
)
# Who works on the kernels builds everything, and reads what the compiler thinks of them: a seventh of their time.
OPINIONS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
# The kernels' loops over octets gain by being vectorised, unrolled at their ends and freed of what never changes in
# them; the rest of -O3 takes a quarter of the time again, and gains next to nothing. -O1 would take a fifth less, and
# make a look at a letter a sixth dearer.
KERNEL_FLAGS = [
    *FLAGS,
    "-O2",
    "-finline-functions",
    "-fpeel-loops",
    "-fpredictive-commoning",
    "-fsplit-loops",
    "-fsplit-paths",
    "-ftree-loop-vectorize",
    "-funswitch-loops",
    "-fvect-cost-model=dynamic",
    "-fno-crossjumping",
    "-fno-gcse",
    "-fno-rerun-cse-after-loop",
    "-fno-schedule-insns2",
    "-fno-tree-pre",
    "-fno-tree-tail-merge",
    *([UNREAD] if ONLY_GATEWAY else OPINIONS),
]
# A compiler that does not know all of these, as Clang does not, optimises as it does for everybody.
PLAIN_FLAGS = ["-g0", "-O2", "-w"]


def flags_of(name: str) -> list[str]:
    """What a module beside a .pxd, or the shared one, is compiled with."""
    if not QUICK:
        return SHIPPED_FLAGS
    if name in SELDOM:
        return SELDOM_FLAGS
    if name not in HOT:
        return COLD_FLAGS
    return HOT_FLAGS if name in OF_THE_CACHE else HOT_FLAGS + HASTY


GATEWAY = [
    Extension(
        "gateway._fastpath",
        ["gateway/_fastpath.pyx"],
        depends=["setup.py", "gateway/_fastpath.pxd", *glob("gateway/fastpath/*.pxi")],
        define_macros=ONCE,
        extra_compile_args=KERNEL_FLAGS,
    ),
    Extension(
        SHARED.replace("/", "."),
        [f"{SHARED}.c"],
        depends=["setup.py"],
        define_macros=ONCE,
        extra_compile_args=flags_of(SHARED),
    ),
    *(
        Extension(
            name.replace("/", "."),
            [f"{name}.py"],
            depends=["setup.py"],
            define_macros=ONCE,
            extra_compile_args=flags_of(name),
        )
        for name in TYPED
    ),
]
BENCH = [
    Extension(
        f"relay_gateway_bench.{name}",
        [f"bench/{name}.pyx"],
        depends=["setup.py", *glob("bench/wire/*.pxi")],
        define_macros=ONCE,
        extra_compile_args=[*KERNEL_FLAGS, "-D_GNU_SOURCE", "-Wno-unused-function"],
    )
    for name in ("_load", "_sink")
]

EXTENSIONS = {"none": [], "gateway": GATEWAY, "all": GATEWAY + BENCH}[MODULES]
GENERATED = [f"{os.path.splitext(extension.sources[0])[0]}.c" for extension in EXTENSIONS]

# Cython's trees are large and live until a module is written: looked through for garbage they cost a fifth of its time.
# Never collected they are a hundred megabytes more in each process.
gc.disable()


def translated() -> list[Extension]:
    """The extensions with their C. Where none is asked for, as an editable install does, Cython is not even read."""
    if not EXTENSIONS:
        return []
    from Cython.Build import cythonize

    return cythonize(
        EXTENSIONS,
        compiler_directives={
            "language_level": 3,
            # annotations are for readers and mypy; C types come from the .pxd files alone
            "annotation_typing": False,
            # functions are called, not bound or inspected, and no object of ours is pickled: a third less to compile,
            # and fewer instructions per call
            "binding": False,
            "auto_pickle": False,
            # what takes one argument takes it by its place: no keywords to unpack, a tenth less to compile
            "always_allow_keywords": False,
            "emit_code_comments": False,  # half of the text that the compiler would read
        },
        shared_utility_qualified_name=SHARED.replace("/", "."),
        nthreads=JOBS,
        # Cython looks at its sources only; what is said here counts as well
        force=any(os.path.getmtime(path) < os.path.getmtime(__file__) for path in GENERATED if os.path.exists(path)),
    )


# What each module of Cython's includes.
HEADERS = ("Python", "structmember", "compile", "frameobject", "traceback", "pythread", "math", "string")


class Build(build_ext):
    """Asks the compiler what it knows, and lets it read the headers once where it has many modules before it."""

    def build_extensions(self) -> None:
        os.makedirs(self.build_temp, exist_ok=True)
        known = self._compiles("flags", sorted({flag for each in self.extensions for flag in each.extra_compile_args}))
        alike: dict[tuple[str, ...], list[Extension]] = {}
        for extension in self.extensions:
            if not known:
                extension.extra_compile_args = PLAIN_FLAGS
            if ONLY_GATEWAY and not os.path.exists(self.get_ext_fullpath(extension.name)):
                alike.setdefault(tuple(extension.extra_compile_args), []).append(extension)
        for place, (flags, extensions) in enumerate(alike.items()):
            # What a compiler cannot use of it, it passes over, and reads the headers themselves.
            if len(extensions) > 3 and self._compiles(f"headers{place}", flags, HEADERS):
                for extension in extensions:
                    extension.extra_compile_args = ["-include", f"{self.build_temp}/headers{place}.h", *flags]
        super().build_extensions()

    def _compiles(self, name: str, flags: Iterable[str], headers: Iterable[str] = ()) -> bool:
        """Whether the compiler makes a precompiled header of these."""
        header = f"{self.build_temp}/{name}.h"
        with open(header, "w") as file:
            file.write("".join(["#define PY_SSIZE_T_CLEAN\n", *(f"#include <{each}.h>\n" for each in headers)]))
        folders = [f"-I{folder}" for folder in (*self.compiler.include_dirs, *self.include_dirs)]
        command = [*self.compiler.compiler_so, *folders, *flags, "-x", "c-header", header, "-o", f"{header}.gch"]
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


setup(
    cmdclass={"build_ext": Build},
    ext_modules=translated(),
    options={"build_ext": {"parallel": JOBS}},
)
