"""What is known of the value of an expression, and of a call, without running anything.

Names are followed as far as they are plain: local aliases, tables with functions in them. Where a value is not known,
everything is taken to be right. Which functions are walked through, and when, is walk.py's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tree_sitter import Node

from gateway.policy import lua_text
from gateway.policy.abstract import LEFT, Absent, Closure, Scope, Table, Thing, Value, is_nil, joined, truth
from gateway.policy.findings import Called, LuaFile, NilUse, Place, Where
from gateway.policy.lua_text import field, line_of, parts, shown, written
from gateway.policy.model import Function, Model, Namespace
from gateway.policy.options import UNKNOWN, Opaque, did_you_mean

UNSET = Opaque("name without a value yet")
_GLOBAL = frozenset({"_G", "_ENV", "_VALIDATING_CONFIG", "arg"})  # there, although no library


class Expressions(ABC):
    """Evaluates expressions. calls: of what the gateway offers. nil_uses: uses of nil."""

    def __init__(self, model: Model, path: str) -> None:
        """path: of the policy's main file."""
        self.calls: list[Called] = []
        self.nil_uses: list[NilUse] = []
        self._model = model
        self._files: dict[str, LuaFile] = {}
        self._file = path
        self._globals = Scope()
        self._handlers: list[tuple[str, Closure]] = []
        self._made: dict[Place, Closure] = {}  # every function, as it was made first
        self._overridden: set[tuple[str, str]] = set()  # functions of the gateway that the policy has put others in for
        self._last: Value = UNKNOWN  # what was called last
        self._caught = 0
        self._asking = 0  # inside a condition: whether something is there
        self._uncalled: Place | None = None
        self._event = ""
        self._unseen = False  # a file was run that nobody has read: there may be any global name

    @abstractmethod
    def _enter(self, closure: Closure, arguments: list[Value]) -> Value:
        """A function of the policy is called: what it returns."""

    @abstractmethod
    def _escape(self, value: Value, *, changed: bool = True) -> None:
        """A value goes where it cannot be followed: what is a function there may be called with anything.

        changed: what is a table may be another one afterwards.
        """

    @abstractmethod
    def _skip(self, node: Node | None) -> None:
        """A piece of the text cannot be reached."""

    @abstractmethod
    def _is_left(self, function: str) -> bool:
        """Whether a function of the gateway's does nothing, because the fleet does it."""

    def _give_away(self, value: Value) -> None:
        """A value goes where nothing is called here."""
        if isinstance(value, Closure):
            outer, self._file = self._file, value.file
            self._skip(value.node)
            self._file = outer
        elif isinstance(value, Table) and not value.open:
            value.open = True  # here, too, because a table may contain itself
            for item in list(value.entries.values()):
                self._give_away(item)

    @abstractmethod
    def _chunk(self, path: str) -> Value:
        """What a file returns that is run."""

    @abstractmethod
    def _module(self, name: str) -> Value:
        """What a module of the policy's own returns."""

    @contextmanager
    def _catching(self, caught: bool = True) -> Iterator[None]:
        self._caught += caught
        yield
        self._caught -= caught

    @contextmanager
    def _asked(self) -> Iterator[None]:
        self._asking += 1
        yield
        self._asking -= 1

    @contextmanager
    def _unasked(self) -> Iterator[None]:
        asking, self._asking = self._asking, 0
        yield
        self._asking = asking

    def _where(self, node: Node, at: Node | None = None) -> Where:
        lines = line_of(node), line_of(at or node)
        return Where(self._file, *lines, self._caught > 0, self._uncalled, self._event)

    def _condition(self, node: Node, scope: Scope) -> bool | None:
        with self._asked():
            return truth(self.expression(node, scope))

    def _values(self, node: Node, scope: Scope) -> list[Value]:
        return [self.expression(one, scope) for one in parts(node)]

    def expression(self, node: Node, scope: Scope) -> Value:
        """What is known of the first value of an expression."""
        evaluate = _EXPRESSIONS.get(node.type)
        return UNKNOWN if evaluate is None else evaluate(self, node, scope)

    def _name(self, node: Node, scope: Scope) -> Value:
        name = written(node)
        holder = scope.holder(name) or self._globals
        if name in holder.names:
            value = holder.names[name]
            return UNKNOWN if value is UNSET else value
        if name in self._model.libraries:
            found = self._model.libraries[name]
            return UNKNOWN if found is None else found
        files = self._files.values()
        known_to_be_absent = not self._unseen and name not in _GLOBAL
        if not known_to_be_absent or any(name in file.assigned or file.makes_globals for file in files):
            return UNKNOWN
        return Absent(name, "no such function or variable", did_you_mean(name, self._model.libraries))

    def _key(self, node: Node, scope: Scope) -> Value:
        """The key of an index expression."""
        name = node.child_by_field_name("method") or field(node, "field")
        if node.type != "bracket_index_expression":
            return written(name)
        key = self.expression(name, scope)
        return key if isinstance(key, str | int) else UNKNOWN

    def _index(self, node: Node, scope: Scope) -> Value:
        base = self.expression(field(node, "table"), scope)
        key = self._key(node, scope)
        found = self.member(base, key, node)
        if isinstance(found, Absent) and isinstance(base, Thing) and found.hint and not self._asking:
            self.nil_uses.append(NilUse(found, self._where(node), harmless=True))
        return found

    def member(self, base: Value, key: Value, node: Node) -> Value:
        """What is found in a value. node: of the expression."""
        if base is LEFT:
            return LEFT
        if isinstance(base, Absent):
            self.nil_uses.append(NilUse(base, self._where(node)))
        elif isinstance(base, Table):
            return self._entry(base, key, node)
        elif isinstance(base, Namespace) and isinstance(key, str):
            return self._offered(base, key)
        elif isinstance(key, str) and not isinstance(base, Opaque):
            return self._of_object(base.kind if isinstance(base, Thing) else type(base), key, node)
        return UNKNOWN

    def _offered(self, base: Namespace, key: str) -> Value:
        if (base.name, key) in self._overridden:
            return UNKNOWN
        if base.unsupported:
            return Function(f"{base.name}.{key}", unsupported=True)
        if key not in base.members:
            return Absent(f"{base.name}.{key}", "no such function", did_you_mean(key, base.members))
        found = base.members[key]
        return UNKNOWN if found is None else found

    def _of_object(self, kind: type, key: str, node: Node) -> Value:
        known = self._model.kinds.get(kind)
        if known is None:
            return UNKNOWN
        if key in known.methods:
            return known.methods[key]
        if known.fields is None or key in known.fields or (kind is str and self._is_written(key)):
            return UNKNOWN
        article = "an" if known.name[0] in "aeiou" else "a"
        what = "method" if node.type == "method_index_expression" else "method or field"
        hint = did_you_mean(key, [*known.methods, *known.fields])
        return Absent(shown(node), f"{article} {known.name} has no such {what}", hint)

    def _entry(self, table: Table, key: Value, node: Node) -> Value:
        if key is UNKNOWN:
            self._escape(table)  # any function in it may be meant
            return UNKNOWN
        if key in table.entries:
            return table.entries[key]
        if table.open or not isinstance(key, str) or self._is_written(key):
            return UNKNOWN
        return Absent(
            shown(node),
            "the table has nothing of that name",
            did_you_mean(key, [str(name) for name in table.entries]),
        )

    def _is_written(self, name: str) -> bool:
        """Whether some table may be given a field of that name, as `string` is by `function string:trim()`."""
        return any(name in file.fields or not file.understood for file in self._files.values())

    def _table(self, node: Node, scope: Scope) -> Value:
        table = Table()
        position = 0
        for entry in parts(node):
            name, value = entry.child_by_field_name("name"), field(entry, "value")
            if name is None:
                position += 1
                key: Value = position
                table.open |= value.type in ("function_call", "vararg_expression") and entry == parts(node)[-1]
            elif entry.children[0].type == "[":
                key = self.expression(name, scope)
            else:
                key = written(name)
            found = self.expression(value, scope)
            if isinstance(key, str | int | float):
                table.entries[key] = found
                table.lines[key] = line_of(entry)
            else:
                table.open = True
                self._escape(found)
        return table

    def _closure(self, node: Node, scope: Scope) -> Closure:
        closure = Closure(node, self._file, scope)
        self._made.setdefault((self._file, node.start_byte), closure)
        return closure

    def _string(self, node: Node, _scope: Scope) -> Value:
        return lua_text.string(node)

    def _number(self, node: Node, _scope: Scope) -> Value:
        found = lua_text.number(written(node))
        return UNKNOWN if found is None else found

    def _constant(self, node: Node, _scope: Scope) -> Value:
        return {"true": True, "false": False, "nil": None}[node.type]

    def _parenthesized(self, node: Node, scope: Scope) -> Value:
        return self.expression(parts(node)[0], scope)

    def _unary(self, node: Node, scope: Scope) -> Value:
        operator = node.children[0].type
        if operator == "not":
            holds = self._condition(field(node, "operand"), scope)
            return UNKNOWN if holds is None else not holds
        value = self.expression(field(node, "operand"), scope)
        if operator == "-" and isinstance(value, int | float) and not isinstance(value, bool):
            return -value
        return UNKNOWN

    def _binary(self, node: Node, scope: Scope) -> Value:
        left, right = field(node, "left"), field(node, "right")
        operator = node.children[1].type
        if operator in ("and", "or"):
            return self._choice(left, right, operator, scope)
        if operator in ("==", "~=") and "nil" in (left.type, right.type):
            asked = left if right.type == "nil" else right
            with self._asked():
                nil = is_nil(self.expression(asked, scope))
            return UNKNOWN if nil is None else nil == (operator == "==")
        with self._unasked():
            waiting = [right, left]
            while waiting:  # no recursion: texts are put together from hundreds of pieces
                one = waiting.pop()
                if one.type == "binary_expression" and one.children[1].type == operator:
                    waiting += [field(one, "right"), field(one, "left")]
                else:
                    self.expression(one, scope)
        return Thing(str) if operator == ".." else UNKNOWN

    def _choice(self, left: Node, right: Node, operator: str, scope: Scope) -> Value:
        with self._asked():
            first = self.expression(left, scope)
        holds = truth(first)
        if holds is not None and holds == (operator == "or"):
            self._skip(right)
            return first
        second = self.expression(right, scope)
        if holds is not None:
            return second
        if operator == "or":
            return joined(first, second)
        self._escape(second)
        return UNKNOWN

    # --- calls ------------------------------------------------------------------------------------------------

    def _call(self, node: Node, scope: Scope) -> Value:
        name = field(node, "name")
        arguments = field(node, "arguments")
        receiver: list[Value] = []
        if name.type == "method_index_expression":
            receiver = [self.expression(field(name, "table"), scope)]
            callee = self.member(receiver[0], written(field(name, "method")), name)
        else:
            with self._asked():
                callee = self.expression(name, scope)
        with self._unasked():
            values = self._values(arguments, scope)
        result = self._called(callee, receiver, values, name, arguments)
        self._last = callee
        return result

    def _called(self, callee: Value, receiver: list[Value], values: list[Value], name: Node, arguments: Node) -> Value:
        if callee is LEFT:
            return self._left(values)
        if isinstance(callee, Closure):
            return self._enter(callee, [*receiver, *values])
        if isinstance(callee, Absent):
            self.nil_uses.append(NilUse(callee, self._where(name, arguments)))
        elif isinstance(callee, Function):
            more = bool(values) and parts(arguments)[-1].type in ("function_call", "vararg_expression")
            self.calls.append(Called(callee, shown(name), values, self._where(name, arguments), more))
            if self._is_left(callee.name):
                return self._left(values)
            special = _SPECIAL.get(callee.name)
            if special is not None:
                return special(self, values, arguments)
        for value in values:
            self._escape(value, changed=not isinstance(callee, Function) or not _keeps_tables(callee))
        if isinstance(callee, Function) and callee.gives is not None and callee.gives in self._model.kinds:
            return Thing(callee.gives)
        return UNKNOWN

    def _left(self, values: list[Value]) -> Value:
        for value in values:
            self._give_away(value)
        return LEFT

    def _protected_call(self, values: list[Value], node: Node) -> Value:
        function, *arguments = values or [UNKNOWN]
        with self._catching():
            if isinstance(function, Closure):
                self._enter(function, arguments)
            elif isinstance(function, Function):
                self.calls.append(Called(function, function.name, arguments, self._where(node)))
            for value in arguments:
                self._escape(value)
        return UNKNOWN

    def _on(self, values: list[Value], _: Node) -> Value:
        event, handler = [*values, UNKNOWN, UNKNOWN][:2]
        if isinstance(event, str) and isinstance(handler, Closure):
            self._handlers.append((event, handler))
        else:
            self._escape(handler)
        return UNKNOWN

    def _require(self, values: list[Value], _: Node) -> Value:
        name = values[0] if values else UNKNOWN
        if not isinstance(name, str):
            self._unseen = True
            return UNKNOWN
        if name == "kumo":
            return self._model.kumo
        if self._is_left(name):
            return LEFT
        return self._model.modules.get(name) or self._module(name)

    def _dofile(self, values: list[Value], _: Node) -> Value:
        path = values[0] if values else UNKNOWN
        self._unseen |= not isinstance(path, str)
        return self._chunk(path) if isinstance(path, str) else UNKNOWN

    def _first(self, values: list[Value], _: Node) -> Value:
        """`assert` gives what it is given."""
        return values[0] if values else UNKNOWN

    def _with_metatable(self, values: list[Value], _: Node) -> Value:
        for value in values:
            self._escape(value)
        return values[0] if values else UNKNOWN

    def _text(self, _values: list[Value], _: Node) -> Value:
        return Thing(str)


def _keeps_tables(function: Function) -> bool:
    """The gateway's own functions only look at what they are given."""
    return function.name.startswith(("kumo.", "gateway.")) or ":" in function.name


_Expression: TypeAlias = Callable[[Expressions, Node, Scope], Value]

_EXPRESSIONS: dict[str, _Expression] = {
    "identifier": Expressions._name,
    "dot_index_expression": Expressions._index,
    "bracket_index_expression": Expressions._index,
    "function_call": Expressions._call,
    "function_definition": Expressions._closure,
    "table_constructor": Expressions._table,
    "string": Expressions._string,
    "number": Expressions._number,
    "true": Expressions._constant,
    "false": Expressions._constant,
    "nil": Expressions._constant,
    "parenthesized_expression": Expressions._parenthesized,
    "unary_expression": Expressions._unary,
    "binary_expression": Expressions._binary,
}
_SPECIAL: dict[str, Callable[[Expressions, list[Value], Node], Value]] = {
    "kumo.on": Expressions._on,
    "require": Expressions._require,
    "dofile": Expressions._dofile,
    "assert": Expressions._first,
    "setmetatable": Expressions._with_metatable,
    "pcall": Expressions._protected_call,
    "xpcall": Expressions._protected_call,
    "tostring": Expressions._text,
    "string.format": Expressions._text,
}
