"""Every .pxd says what its .py says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.declarations import differences

GATEWAY = Path(__file__).parent.parent / "gateway"
PAIRS = [pxd for pxd in sorted(GATEWAY.rglob("*.pxd")) if pxd.with_suffix(".py").exists()]


@pytest.mark.parametrize("pxd", PAIRS, ids=[str(pxd.relative_to(GATEWAY)) for pxd in PAIRS])
def test_a_module_is_declared_as_it_is_written(pxd: Path) -> None:
    assert differences(pxd) == []


def test_there_is_something_to_compare() -> None:
    assert len(PAIRS) > 30


PY = """
class A(Base):
    def __init__(self, size: int, text: str | None) -> None:
        self.size = size
        self.text = text
        self._list: list[int] = []

    def add(self, one: int, two: bytes = b"") -> bool:
        total = one
        return True

def outside(a: int) -> str: ...
LIMIT = 3
"""
PXD = """
import cython
cdef int LIMIT
cdef class A(Base):
    cdef readonly Py_ssize_t size
    cdef public str text
    cdef list _list
    @cython.locals(total=int)
    cpdef bint add(
        self, int one, bytes two=*
    ) except? False
cpdef str outside(a)
"""


@pytest.mark.parametrize(
    ("said", "instead", "difference"),
    [
        ("", "", []),
        ("class A(Base)", "class A", ["A.base: None here, ['Base'] there"]),
        ("class A(Base)", "class B(Base)", ["B: no such class"]),
        ("cdef list _list", "pass", ["A._list: set, not declared"]),
        ("list _list", "list _list, _more", ["A._more: declared, not set in __init__"]),
        ("public str", "public bytes", ["A.text: bytes here, str | None there"]),
        ("Py_ssize_t size", "list size", ["A.size: list here, int there"]),
        ("public str", "public int", ["A.text: int here, str | None there"]),
        ("list _list", "tuple _list", ["A._list: tuple here, list[int] there"]),
        ("bint add", "str add", ["A.add(): its result: str here, bool there"]),
        ("two=*", "two", ["A.add(): (self, one, two) here, (self, one, two=*) there"]),
        (
            "int one, bytes two=*",
            "bytes two, int one",
            ["A.add(): (self, two, one) here, (self, one, two=*) there"],
        ),
        ("int one", "str one", ["A.add(): one: str here, int there"]),
        ("total=int", "sum=int", ["A.add(): sum: no such local variable"]),
        ("outside(a)", "inside(a)", ["inside(): no such function"]),
        ("int LIMIT", "int LIMITS", ["LIMITS: no such variable"]),
    ],
)
def test_a_difference_is_found(tmp_path: Path, said: str, instead: str, difference: list[str]) -> None:
    assert said in PXD
    (tmp_path / "x.py").write_text(PY)
    (tmp_path / "x.pxd").write_text(PXD.replace(said, instead) if said else PXD)
    assert differences(tmp_path / "x.pxd") == difference


def test_a_line_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(PY)
    (tmp_path / "x.pxd").write_text(PXD + "\ncdef struct what:\n    int x\n")
    with pytest.raises(ValueError, match="struct what"):
        differences(tmp_path / "x.pxd")
