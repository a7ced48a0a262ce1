"""Builds the compiled modules: the gateway's gateway/_fastpath and the bench suite's own, which shares nothing with it.

Everything else about the packages is in pyproject.toml.
"""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# Plain Python modules that every command or message passes through, compiled as they are; the .pxd beside each gives
# the C types of its fields. Without a compiler's help they behave the same, only slower.
TYPED = [
    "connection",
    "message",
    "reception",
    "transaction",
    "smtp/address",
    "smtp/commands",
    "smtp/replies",
    "smtp/session",
]

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
                Extension(f"gateway.{name.replace('/', '.')}", [f"gateway/{name}.py"], extra_compile_args=["-O2"])
                for name in TYPED
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
        # annotations are for readers and mypy; C types come from the .pxd files alone
        compiler_directives={"language_level": 3, "annotation_typing": False},
    )
)
