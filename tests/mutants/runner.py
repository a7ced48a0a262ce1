"""python -m tests.mutants.runner MODULE SHARE RESULT TEST …: one process of __main__'s, in the copy of the tree.

MODULE: its path without .py. SHARE: "0/2" tries every other mutant. RESULT: a file that gets a line per mutant: its
name where it survived. It is a plugin of the pytest that it runs: the loop over the tests becomes one over the mutants.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import select
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

import _pytest.main
import pytest

from tests.mutants.mutations import Mutant, mutants

KILLED = "killed: "
PATIENCE = 5, 5  # seconds, and times what the tests take without a mutant; one that takes longer has been noticed
OPTIONS = ("-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:benchmark",
           "--no-header", "--no-summary",)  # fmt: skip


_KEPT = ("gateway._fastpath", "tests.mutants", "__main__")


class Mutating:
    """The plugin. tests: the files, for mutants that need the module made again."""

    def __init__(self, path: str, share: str, result: Path, tests: list[str]) -> None:
        self._path, self._result, self._tests = path, result, tests
        self._place, self._shares = map(int, share.split("/"))
        self._patience = 300.0
        self._module = path.replace("/", ".")

    def pytest_sessionstart(self) -> None:
        from hypothesis import settings  # not before pytest, which rewrites it

        settings.register_profile("mutants", deadline=None, database=None, derandomize=True)
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        module = importlib.import_module(self._module)
        assert str(module.__file__).endswith(".py")
        text = Path(f"{self._path}.py").read_text()
        began = time.monotonic()
        for without in (None, Mutant("none", None, text)):
            if not self._passes(session, without):
                pytest.exit("the tests fail without any mutant", 1)
        self._patience = PATIENCE[0] + PATIENCE[1] * (time.monotonic() - began)
        with open(self._result, "w") as result:
            for mutant in mutants(module, text)[self._place :: self._shares]:
                survived = self._passes(session, mutant)
                result.write(f"{'' if survived else KILLED}{mutant.name}\n")
                result.flush()
        return True

    def _passes(self, session: pytest.Session, mutant: Mutant | None) -> bool:
        """Whether all tests pass with this mutant, in a process of their own."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if mutant is not None and mutant.name != "none":
                    silence = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(silence, 1)
                    os.dup2(silence, 2)
                code = self._run(session, mutant)
            finally:
                os._exit(code)
        child = os.pidfd_open(pid)
        if not select.select([child], [], [], self._patience)[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(child)
        return os.waitpid(pid, 0)[1] == 0

    def _run(self, session: pytest.Session, mutant: Mutant | None) -> int:
        if mutant is not None and (mutant.function is None or not self._swap(mutant)):
            return self._run_anew(mutant)
        _pytest.main.pytest_runtestloop(session)
        return 1 if session.testsfailed else 0

    def _swap(self, mutant: Mutant) -> bool:
        """Gives the mutated function its code; whoever imported it by name has it, too."""
        assert mutant.function is not None
        target: Any = sys.modules[self._module]
        code: types.CodeType | None = compile(mutant.source, f"{self._path}.py", "exec", dont_inherit=True)
        for name in mutant.function.split("."):
            target = target.__dict__.get(name)
            code = next((c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == name), None)
            if target is None or code is None:
                return False
        function = getattr(target, "fget", None) or getattr(target, "__wrapped__", target)
        if not isinstance(function, types.FunctionType) or function.__code__.co_freevars != code.co_freevars:
            return False
        function.__code__ = code
        return True

    def _run_anew(self, mutant: Mutant) -> int:
        """Imports everything again, with the mutant in the module's place."""
        here = f"{Path.cwd()}/"
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(here) and not name.startswith(_KEPT):
                del sys.modules[name]
        sys.meta_path.insert(0, _Instead(self._module, mutant.source))
        return int(pytest.main([*OPTIONS, *self._tests]))


class _Instead:
    """Finds one module in a text."""

    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        return importlib.util.spec_from_loader(name, self, origin=f"{name}.py") if name == self._module else None

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        exec(compile(self._source, f"{self._module}.py", "exec", dont_inherit=True), module.__dict__)


def main() -> int:
    path, share, result, *names = sys.argv[1:]
    tests = [f"tests/{name}.py" for name in names]
    with open(f"{result}.told", "w") as told:
        standard = os.dup(1)
        os.dup2(told.fileno(), 1)
        code = int(pytest.main([*OPTIONS, *tests], plugins=[Mutating(path, share, Path(result), tests)]))
        os.dup2(standard, 1)
    if code not in (0, pytest.ExitCode.OK):
        print(Path(f"{result}.told").read_text(), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
