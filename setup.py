"""Builds the compiled modules: the gateway's gateway/_fastpath and the bench suite's own, which shares nothing with it.

Everything else about the packages is in pyproject.toml.
"""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

FLAGS = ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                "gateway._fastpath",
                ["gateway/_fastpath.pyx"],
                depends=glob("gateway/fastpath/*.pxi"),
                extra_compile_args=FLAGS,
            ),
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
        compiler_directives={"language_level": 3},
    )
)
