"""Builds the compiled modules: the gateway's gateway/_fastpath and the bench suite's own, which shares nothing with it.

Everything else about the packages is in pyproject.toml.
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

JOBS = os.cpu_count() or 1
FLAGS = ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                "gateway._fastpath",
                ["gateway/_fastpath.pyx"],
                depends=["gateway/_fastpath.pxd", *glob("gateway/fastpath/*.pxi")],
                extra_compile_args=FLAGS,
            ),
            *(Extension(name.replace("/", "."), [f"{name}.py"], extra_compile_args=["-O2"]) for name in TYPED),
            *(
                Extension(
                    f"relay_gateway_bench.{name}",
                    [f"bench/{name}.pyx"],
                    depends=glob("bench/wire/*.pxi"),
                    extra_compile_args=[*FLAGS, "-D_GNU_SOURCE", "-Wno-unused-function"],
                )
                for name in ("_load", "_sink")
            ),
        ],
        # annotations are for readers and mypy; C types come from the .pxd files alone
        compiler_directives={"language_level": 3, "annotation_typing": False},
        nthreads=JOBS,
    ),
    options={"build_ext": {"parallel": JOBS}},
)
