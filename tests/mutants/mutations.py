"""The mutants of a module: small changes to its syntax tree, each with a name that survives edits elsewhere.

What must not be here: how they are tried.
"""

from __future__ import annotations

import ast
import copy
import enum
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """name: "function: before → after", unique in its module. function: whose code alone differs; None when the whole
    module has to be made again. source: the module's text.
    """

    name: str
    function: str | None
    source: str


def mutants(module: types.ModuleType, text: str) -> list[Mutant]:
    """All mutants of a module. text: its source."""
    tree = ast.parse(text)
    at_import = _called_at_import(tree)
    seen: Counter[str] = Counter()
    found = []
    for path, owner, in_body in _places(tree):
        original = _at(tree, path)
        for replacement in _replacements(original, module):
            changed = copy.deepcopy(tree)
            _put(changed, path, replacement)
            name = f"{owner or 'module'}: {_words(original)} → {_words(replacement)}"
            seen[name] += 1
            unique = name if seen[name] == 1 else f"{name} #{seen[name]}"
            source = ast.unparse(ast.fix_missing_locations(changed))
            found.append(Mutant(unique, owner if in_body and owner not in at_import else None, source))
    return found


def _called_at_import(tree: ast.Module) -> set[str]:
    """The functions whose work is done once the module is there: other code in them would change nothing any more."""
    statements = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    nodes = (node for statement in statements for node in ast.walk(statement))
    return {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def _words(node: ast.AST) -> str:
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())


# --- where ------------------------------------------------------------------------------------------------------------

Path = tuple[tuple[str, int | None], ...]


def _places(tree: ast.Module) -> Iterator[tuple[Path, str, bool]]:
    """Every node: the way to it, the function or class it is in, and whether that function's code alone has it."""
    yield from _below(tree, (), "", False)


def _below(node: ast.AST, path: Path, owner: str, in_body: bool) -> Iterator[tuple[Path, str, bool]]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "simple"):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _is_docstring(child) or isinstance(child, ast.Import | ast.ImportFrom):
                continue
            place = (*path, (name, index))
            if isinstance(child, ast.FunctionDef) and not in_body:
                inner = f"{owner}.{child.name}" if owner else child.name
                yield from _in_function(child, place, inner)
            elif isinstance(child, ast.ClassDef):
                yield from _below(child, place, child.name, False)
            else:
                yield place, owner, in_body
                yield from _below(child, place, owner, in_body)


def _in_function(node: ast.FunctionDef, path: Path, owner: str) -> Iterator[tuple[Path, str, bool]]:
    yield from _below(node.args, (*path, ("args", None)), owner, False)  # defaults are made with the module
    for index, statement in enumerate(node.body):
        if not _is_docstring(statement):
            place = (*path, ("body", index))
            yield place, owner, True
            yield from _below(statement, place, owner, True)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _at(tree: ast.AST, path: Path) -> ast.AST:
    for name, index in path:
        value = getattr(tree, name)
        tree = value if index is None else value[index]
    return tree


def _put(tree: ast.AST, path: Path, replacement: ast.AST) -> None:
    parent, (name, index) = _at(tree, path[:-1]), path[-1]
    if index is None:
        setattr(parent, name, replacement)
    else:
        getattr(parent, name)[index] = replacement


# --- what -------------------------------------------------------------------------------------------------------------


def _replacements(node: ast.AST, module: types.ModuleType) -> Iterator[ast.AST]:  # noqa: C901  # a table of kinds
    match node:
        case ast.stmt():
            yield from _instead_of_statement(node)
        case ast.Compare(left, operators, operands):
            for place, operator in enumerate(operators):
                for other in COMPARISONS[type(operator)]:
                    yield ast.Compare(left, [*operators[:place], other(), *operators[place + 1 :]], operands)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            for place in range(len(values)):
                rest = values[:place] + values[place + 1 :]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(operator, rest)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.IfExp(test, body, orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.comprehension(target, iterable, [_, *_] as conditions):
            for place in range(len(conditions)):
                yield ast.comprehension(target, iterable, conditions[:place] + conditions[place + 1 :], 0)
        case ast.Call(ast.Name(name), arguments, keywords) if name in CALLS:
            yield ast.Call(ast.Name(CALLS[name], ast.Load()), arguments, keywords)
        case ast.Constant():
            yield from _instead_of_constant(node)
        case ast.Attribute(ast.Name(), _, ast.Load()):
            yield from _instead_of_name(node, module)


def _instead_of_statement(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Assign([ast.Attribute() | ast.Subscript()], _):
            yield ast.Pass()
        case ast.AnnAssign(ast.Attribute() | ast.Subscript(), _, ast.expr()):
            yield ast.Pass()
        case ast.Return(value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None))
        case ast.Return():
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
    match node:
        case ast.AugAssign(target, operator, value) if type(operator) in OPERATORS:
            yield ast.AugAssign(target, OPERATORS[type(operator)](), value)
        case ast.If(_, body, orelse):
            yield ast.If(ast.Constant(True), body, orelse)
            yield ast.If(ast.Constant(False), body, orelse)
        case ast.While(_, body, orelse):
            yield ast.While(ast.Constant(False), body, orelse)
        case ast.For(target, _, body, orelse):
            yield ast.For(target, ast.Tuple([], ast.Load()), body, orelse, None)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _instead_of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool(value):
            yield ast.Constant(not value)
        case int(value) | float(value):
            yield ast.Constant(value + 1)
        case str(value):
            yield ast.Constant(f"{value}?")
        case bytes(value):
            yield ast.Constant(value + b"?")


def _instead_of_name(node: ast.Attribute, module: types.ModuleType) -> Iterator[ast.AST]:
    """Another member of an enumeration; another constant of the same type from the same module."""
    assert isinstance(node.value, ast.Name)
    owner = getattr(module, node.value.id, None)
    value = getattr(owner, node.attr, None)
    names: list[str] = []
    if isinstance(value, enum.Enum) and isinstance(owner, enum.EnumMeta):
        names = list(owner.__members__)
    elif isinstance(owner, types.ModuleType) and node.attr.isupper():
        names = [name for name, other in vars(owner).items() if name.isupper() and type(other) is type(value)]
    if len(names) > 1:
        other = names[(names.index(node.attr) + 1) % len(names)]
        yield ast.Attribute(node.value, other, ast.Load())
