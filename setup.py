"""Builds the compiled modules: the gateway's own, and those of the bench suite, which shares nothing with it.

Everything else about the packages is in pyproject.toml. RELAY_GATEWAY_MODULES=gateway leaves the bench suite's out:
only `relay-gateway bench` and the tests need them, and `make run` does not wait for them. RELAY_GATEWAY_MODULES=none
compiles nothing: an editable install would compile everything again that was just built in place.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# Plain Python modules that every command or message passes through: those with a .pxd beside them, which gives the C
# types of their fields. They are compiled as they are, and behave the same uncompiled, only slower.
TYPED = sorted(
    path.removesuffix(".pxd")
    for path in glob("gateway/**/*.pxd", recursive=True)
    if os.path.exists(f"{path.removesuffix('.pxd')}.py")
)

# What was compiled here while a module still had its .pxd would be imported instead of the module as it is now.
for built in glob("gateway/**/*.so", recursive=True):
    if built.partition(".")[0] not in (*TYPED, "gateway/_fastpath"):
        os.remove(built)

JOBS = os.cpu_count() or 1
NO_DEBUGGER = "-g0"  # a quarter of a compiler's time
# What -O2 adds to -O1 costs half as much again to compile, and saves generated code 3 % of its instructions.
TYPED_FLAGS = [NO_DEBUGGER, "-O1"]
# Modules that no message passes through unless it is a report, and what works by the batch or the listener.
COLD = ("gateway/reports/", "gateway/logs/writer", "gateway/policy/listener")
COLD_FLAGS = [NO_DEBUGGER, "-Og"]
# The kernels' loops over octets gain by all of it.
KERNEL_FLAGS = [NO_DEBUGGER, "-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

GATEWAY = [
    Extension(
        "gateway._fastpath",
        ["gateway/_fastpath.pyx"],
        depends=["setup.py", "gateway/_fastpath.pxd", *glob("gateway/fastpath/*.pxi")],
        extra_compile_args=KERNEL_FLAGS,
    ),
    *(
        Extension(
            name.replace("/", "."),
            [f"{name}.py"],
            depends=["setup.py"],
            extra_compile_args=COLD_FLAGS if name.startswith(COLD) else TYPED_FLAGS,
        )
        for name in TYPED
    ),
]
BENCH = [
    Extension(
        f"relay_gateway_bench.{name}",
        [f"bench/{name}.pyx"],
        depends=["setup.py", *glob("bench/wire/*.pxi")],
        extra_compile_args=[*KERNEL_FLAGS, "-D_GNU_SOURCE", "-Wno-unused-function"],
    )
    for name in ("_load", "_sink")
]

EXTENSIONS = {"none": [], "gateway": GATEWAY, "all": GATEWAY + BENCH}[os.environ.get("RELAY_GATEWAY_MODULES", "all")]
GENERATED = [f"{os.path.splitext(extension.sources[0])[0]}.c" for extension in EXTENSIONS]

setup(
    ext_modules=cythonize(
        EXTENSIONS,
        compiler_directives={
            "language_level": 3,
            # annotations are for readers and mypy; C types come from the .pxd files alone
            "annotation_typing": False,
            # functions are called, not bound or inspected, and no object of ours is pickled: a third less to compile,
            # and fewer instructions per call
            "binding": False,
            "auto_pickle": False,
        },
        nthreads=JOBS,
        # Cython looks at its sources only; what is said here counts as well
        force=any(os.path.getmtime(path) < os.path.getmtime(__file__) for path in GENERATED if os.path.exists(path)),
    ),
    options={"build_ext": {"parallel": JOBS}},
)
