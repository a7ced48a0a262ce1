"""Builds the one compiled module, gateway/_fastpath; everything else about the package is in pyproject.toml."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

FLAGS = ["-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]

setup(
    ext_modules=cythonize(
        Extension(
            "gateway._fastpath",
            ["gateway/_fastpath.pyx"],
            depends=glob("gateway/fastpath/*.pxi"),
            extra_compile_args=FLAGS,
        ),
        compiler_directives={"language_level": 3},
    )
)
