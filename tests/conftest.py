"""What holds for all tests: they never run against compiled modules that are older than their sources.

UNCOMPILED=1 says that nothing but the kernels is compiled, and meant to be so (tests/uncompiled.py).
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Hundreds of gateways are started here, each in a process of its own: without bytecode each would compile everything.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says nothing: the machine may be busy.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

pytest_plugins = ["tests.gateway_process", "tests.couriers_in_loop"]  # the fixtures `start` and `sink`; `run`

GATEWAY = Path(__file__).parent.parent / "gateway"


def _stale() -> list[str]:
    sources = {pxd.with_suffix(""): [pxd, pxd.with_suffix(".py")] for pxd in GATEWAY.rglob("*.pxd")}
    sources[GATEWAY / "_fastpath"] = [*GATEWAY.glob("_fastpath.p*"), *GATEWAY.glob("fastpath/*.pxi")]
    sources[GATEWAY / "_shared"] = [GATEWAY.parent / "setup.py"]  # Cython makes it
    stale = []
    for module, files in sources.items():
        built = [path.stat().st_mtime for path in module.parent.glob(module.name + ".*.so")]
        if not built or max(path.stat().st_mtime for path in files) > max(built):
            stale.append(str(module.relative_to(GATEWAY.parent)))
    compiled = {path.with_name(path.name.partition(".")[0]) for path in GATEWAY.rglob("*.so")}
    return stale + [str(module.relative_to(GATEWAY.parent)) for module in compiled - set(sources)]


def pytest_sessionstart() -> None:
    if os.environ.get("UNCOMPILED"):
        assert not [path for path in GATEWAY.rglob("*.so") if path.parent != GATEWAY]
        return
    if stale := _stale():
        command = "python setup.py build_ext --inplace"
        pytest.exit(f"compiled modules are older than their sources: {', '.join(stale)}; run `{command}`", 3)
