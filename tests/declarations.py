"""Reads what a .pxd declares and what its .py says, and tells where the two differ.

A module with a .pxd beside it runs compiled and as it is; what the .pxd leaves out, or says otherwise, shows in one of
the two only: an attribute that cannot be set, an argument in another's place, None in a number.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
# A C type, and the annotations that mean the same. A type that is not here stands for itself, and may be None.
NUMBERS = {
    "bint": {"bool"},
    "double": {"float", "int"},
    **{kind: {"int", "bool"} for kind in ("int", "long long", "Py_ssize_t", "unsigned int", "Py_UCS4")},
}
ABSTRACT = {"Any", "object"}  # annotations that say nothing
CONTAINERS = {
    "list": {"list", "Sequence", "Iterable", "Collection"},
    "dict": {"dict", "Mapping", "MutableMapping"},
    "tuple": {"tuple", "Sequence"},
    "set": {"set"},
    "frozenset": {"frozenset"},
    "bytes": {"bytes"},
    "str": {"str"},
}
_TYPE = r"(?:const )?(?:long long|unsigned int|[\w.]+)(?: ?\*)?"
_CLASS = re.compile(r"cdef class (\w+)(?:\((\w+)\))?:")
_FUNCTION = re.compile(rf"(?:cdef|cpdef)(?: inline)? (?:(?P<type>{_TYPE}) )?(?P<name>\w+)\((?P<parameters>.*)\)")
_FIELDS = re.compile(rf"cdef (?:(?:public|readonly) )?(?P<type>{_TYPE}) (?P<names>\w+(?:, \w+)*)$")
_LOCALS = re.compile(r"@cython\.locals\((.*)\)")


@dataclass
class Function:
    """type: what it returns. parameters: names with types, "=*" behind the name of an optional one."""

    type: str | None
    parameters: list[tuple[str, str | None]]
    locals: list[str] = field(default_factory=list)


@dataclass
class Scope:
    """What a class or the module itself declares. names: fields or variables with their types."""

    base: str | None = None
    names: dict[str, str] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)


def declared(pxd: Path) -> dict[str, Scope]:
    """What a .pxd declares: "" is the module itself, the others are its classes. Raises ValueError on what it cannot
    read, so that nothing is passed over.
    """
    text = re.sub(r"\(\s*([^()]*?),?\s*\)", lambda m: f"({' '.join(m[1].split())})", pxd.read_text())  # one line each
    scopes = {"": Scope()}
    name, local = "", []
    for line in text.splitlines():
        code = line.split(" #")[0].rstrip()
        if not code.strip() or re.match(
            r"#|import |cimport |from .* cimport |@cython\.(freelist|final)|\s+pass$", code
        ):
            continue
        if not code.startswith(" "):
            name = ""
        code = code.strip()
        if found := _CLASS.match(code):
            name = found[1]
            scopes[name] = Scope(found[2])
        elif found := _LOCALS.match(code):
            local = [part.partition("=")[0].strip() for part in found[1].split(",")]
        elif found := _FUNCTION.match(code):
            parameters = [_parameter(part.strip()) for part in found["parameters"].split(",") if part.strip()]
            scopes[name].functions[found["name"]] = Function(found["type"], parameters, local)
            local = []
        elif found := _FIELDS.match(code):
            scopes[name].names |= dict.fromkeys(found["names"].split(", "), found["type"])
        else:
            raise ValueError(f"{pxd}: {line}")
    return scopes


def _cimported(pxd: Path) -> dict[str, Scope]:
    """The classes that a .pxd cimports, as far as they are written in Python."""
    found: dict[str, Scope] = {}
    for module, names in re.findall(r"^from (gateway[\w.]*) cimport (.+)$", pxd.read_text(), re.M):
        other = ROOT / f"{module.replace('.', '/')}.pxd"
        if other.with_suffix(".py").exists():
            theirs = declared(other)
            found |= {name: theirs[name] for name in names.split(", ") if name in theirs}
    return found


def _parameter(text: str) -> tuple[str, str | None]:
    optional = "=*" if text.endswith("=*") else ""
    *kind, name = text.removesuffix("=*").split()
    return name + optional, " ".join(kind) or None


class _Spelled(ast.NodeTransformer):
    """Puts what a name stands for (`Fields = list[tuple[str, str]]`) in its place."""

    def __init__(self, aliases: dict[str, ast.expr]) -> None:
        self._aliases = aliases

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._aliases.get(node.id, node) if isinstance(node.ctx, ast.Load) else node


def _aliases(module: ast.Module, *, imported: bool = True) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in module.body:
        if imported and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gateway."):
            path = ROOT / f"{(node.module or '').replace('.', '/')}.py"
            if path.exists():
                theirs = _aliases(ast.parse(path.read_text()), imported=False)
                found |= {name.name: theirs[name.name] for name in node.names if name.name in theirs}
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            value = node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and _is_alias(node):
                value = ast.parse(value.value, mode="eval").body
            if isinstance(target, ast.Name) and isinstance(value, ast.Subscript):
                found[target.id] = value
    return found


def _is_alias(node: ast.Assign | ast.AnnAssign) -> bool:
    return isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"


def differences(pxd: Path) -> list[str]:
    """Where a .pxd and the .py beside it say different things, a line each."""
    module = ast.parse(pxd.with_suffix(".py").read_text())
    aliases = _aliases(module)
    for node in ast.walk(module):
        for part in ("annotation", "returns"):
            if getattr(node, part, None) is not None:
                setattr(node, part, _Spelled(aliases).visit(getattr(node, part)))
    own = declared(pxd)
    scopes = _cimported(pxd) | own
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    found = []
    for name, scope in own.items():
        node: ast.Module | ast.ClassDef | None = classes.get(name) if name else module
        if node is None:
            found.append(f"{name}: no such class")
            continue
        found += [f"{name}{'.' if name else ''}{text}" for text in _functions(scope, node)]
        if isinstance(node, ast.ClassDef):
            found += [f"{name}.{text}" for text in _fields(scope, node, scopes)]
        else:
            assigned = {target.id for target in ast.walk(module) if isinstance(target, ast.Name)}
            found += [f"{variable}: no such variable" for variable in scope.names if variable not in assigned]
    return found


def _fields(scope: Scope, node: ast.ClassDef, scopes: dict[str, Scope]) -> Iterator[str]:
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    if (scope.base or "object") != (bases[0] if bases else "object"):
        yield f"base: {scope.base} here, {bases} there"
    methods = {function.name: function for function in node.body if isinstance(function, ast.FunctionDef)}
    by_method = {name: _assigned(function) for name, function in methods.items()}
    everywhere = _merged(*by_method.values())
    begun = everywhere
    if "__init__" in methods:
        called = {node.attr for node in ast.walk(methods["__init__"]) if isinstance(node, ast.Attribute)}
        begun = _merged(*(by_method[name] for name in ("__init__", *methods) if name in {"__init__", *called}))
    inherited = scopes[scope.base].names if scope.base in scopes else {}
    yield from (
        f"{name}: set, not declared" for name in everywhere if name not in scope.names and name not in inherited
    )
    yield from (f"{name}: declared, not set in __init__" for name in scope.names if name not in begun)
    for name, kind in scope.names.items():
        annotation = begun.get(name) or everywhere.get(name)
        if annotation and not _agree(kind, annotation):
            yield f"{name}: {kind} here, {annotation} there"


def _merged(*tables: dict[str, str | None]) -> dict[str, str | None]:
    names = {name for table in tables for name in table}
    return {name: next(filter(None, (table.get(name) for table in tables)), None) for name in names}


def _assigned(function: ast.FunctionDef) -> dict[str, str | None]:
    """The attributes of self that a method sets, with what is said about their types."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    known = {argument.arg: argument.annotation for argument in arguments}
    found: dict[str, str | None] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign):
            targets, annotation = [node.target], node.annotation
        elif isinstance(node, ast.Assign):
            targets = [
                t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])
            ]
            annotation = known.get(node.value.id) if isinstance(node.value, ast.Name) else None
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
                found[target.attr] = found.get(target.attr) or (ast.unparse(annotation) if annotation else None)
    return found


def _functions(scope: Scope, node: ast.Module | ast.ClassDef) -> Iterator[str]:
    there = {function.name: function for function in node.body if isinstance(function, ast.FunctionDef)}
    for name, function in scope.functions.items():
        if name not in there:
            yield f"{name}(): no such function"
            continue
        arguments = there[name].args
        names = [*arguments.posonlyargs, *arguments.args]
        required = len(names) - len(arguments.defaults)
        written = [argument.arg + ("=*" if place >= required else "") for place, argument in enumerate(names)]
        own = [parameter for parameter, _ in function.parameters]
        if own != written or arguments.kwonlyargs or arguments.vararg or arguments.kwarg:
            yield f"{name}(): ({', '.join(own)}) here, ({', '.join(written)}) there"
            continue
        kinds = [*zip(own, (kind for _, kind in function.parameters), (a.annotation for a in names), strict=True)]
        for parameter, kind, annotation in [*kinds, ("its result", function.type, there[name].returns)]:
            if kind and annotation and not _agree(kind, ast.unparse(annotation)):
                yield f"{name}(): {parameter}: {kind} here, {ast.unparse(annotation)} there"
        inside = {part.id for part in ast.walk(there[name]) if isinstance(part, ast.Name)}
        unknown = set(function.locals) - inside - {argument.arg for argument in names}
        yield from (f"{name}(): {local}: no such local variable" for local in sorted(unknown))


def _agree(kind: str, annotation: str) -> bool:
    """Whether a C type can hold all that an annotation allows."""
    choices = {choice.strip().split("[")[0].rpartition(".")[2] for choice in _alternatives(annotation.strip("'\""))}
    if kind in ("object", "const char *") or choices & ABSTRACT:
        return kind not in NUMBERS or choices <= NUMBERS[kind] | ABSTRACT
    if kind in NUMBERS:
        return choices <= NUMBERS[kind] or all(choice[0].isupper() and choice != "None" for choice in choices)
    kind = kind.rpartition(".")[2]
    return choices - {"None"} <= CONTAINERS.get(kind, {kind})


def _alternatives(annotation: str) -> list[str]:
    parts, depth, part = [], 0, ""
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [*parts, part]
