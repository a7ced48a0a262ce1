"""A walk through the text of a policy: what can be reached, from the first line to the last handler.

Nothing runs. Functions are walked through when they are called, with what they are called with; those that go where
they cannot be followed, with anything; and last, those that nothing calls. What values are is expressions.py's
business, what is wrong with a call lint.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import PurePath
from typing import TypeAlias

from tree_sitter import Node

from gateway.policy import delivery_side, lua_text
from gateway.policy.abstract import Absent, Closure, Scope, Table, Thing, Value, joined
from gateway.policy.expressions import UNSET, Expressions
from gateway.policy.findings import LuaFile, NilUse, Place, is_local
from gateway.policy.handlers import KUMOMTA_PATHS
from gateway.policy.lua_text import field, line_of, parts, written
from gateway.policy.messages.handle import MessageHandle
from gateway.policy.model import Function, Model, Namespace
from gateway.policy.options import UNKNOWN
from gateway.policy.source import PolicySource

_DEPTH = 24  # of functions that call each other; what lies deeper is looked at by itself
_VARIANTS = 8  # of arguments that one function is looked at with
_ENDING = frozenset({"kumo.reject", "kumo.disconnect", "error"})


class Walk(Expressions):
    """One walk; what was found is in `calls` and `nil_uses`. missing_modules: what `require` would not find."""

    def __init__(self, model: Model, source: PolicySource) -> None:
        super().__init__(model, source.path)
        self.missing_modules: set[str] = set()
        self._source = source
        self._has_fleet = source.deployment.fleet is not None
        self._chunks: dict[str, Value] = {}
        self._depth = 0
        self._returned: list[list[Value]] = []
        self._results: dict[tuple[object, ...], tuple[Scope, Value]] = {}
        self._variants: Counter[Place] = Counter()
        self._reached: set[Place] = set()
        self._pending: list[tuple[Closure, bool]] = []
        for path, content in list(source.files.items()):
            if content is not None and (path == source.path or path.endswith(".lua")):
                self._files[path] = LuaFile(content)

    def go(self) -> None:
        """Walks from the first line to the last handler, and then through what nothing reached."""
        with suppress(RecursionError):  # nobody writes so: what was found until then is what is known
            self._everywhere()

    def _everywhere(self) -> None:
        self._chunk(self._source.path)
        self._finish()
        for place, closure in list(self._made.items()):
            if place not in self._reached:
                self._file = closure.file
                self._skip(closure.node)  # with those inside
                self._uncalled = place
                self._enter(closure, [])
                self._finish()
        self._uncalled = None

    def _finish(self) -> None:
        while self._handlers or self._pending:
            if self._pending:
                closure, caught = self._pending.pop()
                with self._catching(caught):
                    self._enter(closure, [])
                continue
            known = [one for one in self._handlers if self._model.parameters(one[0])]
            event, closure = (known or self._handlers)[0]
            self._handlers.remove((event, closure))
            if self._has_fleet and delivery_side.is_event(event):
                self._file = closure.file
                self._skip(closure.node)
                continue
            kinds = self._model.parameters(event) or ((MessageHandle,) if event in self._filters() else ())
            self._event = event
            self._enter(closure, [Thing(kind) for kind in kinds])
            self._event = ""

    def _filters(self) -> set[Value]:
        """Events of the policy's own that loggers call with a message."""
        tables = [
            call.arguments[0]
            for call in self.calls
            if call.function.name == "kumo.configure_local_logs" and call.arguments
        ]
        names = [table.entries.get("filter_event") for table in tables if isinstance(table, Table)]
        return {name for name in names if isinstance(name, str)}

    def lines(self) -> dict[Place, int]:
        """The line that each function begins in."""
        return {
            (path, node.start_byte): line_of(node)
            for path, file in self._files.items()
            for node in lua_text.functions(file.root)
        }

    def strings(self) -> Counter[str]:
        """How often each string literal stands in the policy."""
        return Counter(text for file in self._files.values() for text in file.strings())

    def fields(self) -> set[str]:
        """The names that entries of tables have where they are written, or are given later."""
        return set().union(*(file.fields for file in self._files.values()))

    # --- files and functions ----------------------------------------------------------------------------------

    def _chunk(self, path: str) -> Value:
        if path not in self._chunks:
            self._chunks[path] = UNKNOWN
            if path not in self._files:
                content = self._source.load(path)
                if content is None:
                    return UNKNOWN
                self._files[path] = LuaFile(content)
            file = self._files[path]
            if file.understood:
                self._chunks[path] = self._body(file.root, path, Scope())
        return self._chunks[path]

    def _body(self, node: Node, path: str, scope: Scope) -> Value:
        outer, self._file = self._file, path
        self._returned.append([])
        self._depth += 1
        self._block(node, scope)
        self._depth -= 1
        self._file = outer
        returned = self._returned.pop()
        result = returned[0] if returned else UNKNOWN
        for value in returned[1:]:
            result = joined(result, value)
        return result

    def _enter(self, closure: Closure, arguments: list[Value]) -> Value:
        node = closure.node
        place = closure.file, node.start_byte
        if self._variants[place] >= _VARIANTS:
            arguments = []
        key = (place, id(closure.scope), tuple(map(_shape, arguments)))
        if key in self._results:
            return self._results[key][1]
        if self._depth >= _DEPTH:
            self._escape(closure)
            return UNKNOWN
        self._variants[place] += 1
        self._reached.add(place)
        self._results[key] = closure.scope, UNKNOWN
        scope = Scope(closure.scope)
        names = closure.parameters()
        if node.type == "function_declaration" and field(node, "name").type == "method_index_expression":
            names.insert(0, "self")
        assigned = self._files[closure.file].assigned
        given = [*arguments, *[UNKNOWN] * len(names)]
        for name, value in zip(names, given, strict=False):
            scope.names[name] = UNKNOWN if name in assigned else value
        body = node.child_by_field_name("body")
        result = UNKNOWN if body is None else self._body(body, closure.file, scope)
        self._results[key] = closure.scope, result
        return result

    def _module(self, name: str) -> Value:
        ends = tuple(f"{name.replace('.', '/')}{end}" for end in (".lua", "/init.lua"))
        inside = tuple(f"/{end}" for end in ends)
        for path, content in list(self._source.files.items()):
            if content is not None and (path in ends or path.endswith(inside)):
                return self._chunk(path)
        directory = str(PurePath(self._source.path).parent)
        for path in (f"{place}/{end}" for place in (directory, *KUMOMTA_PATHS) for end in ends):
            if self._source.load(path) is not None:
                return self._chunk(path)
        package, _, rest = name.partition(".")
        is_extra = package == "policy-extras" and self._model.extras(rest) is not None
        is_extra = is_extra and not delivery_side.is_module(name)
        if not is_extra:
            self._unseen = True
            if not self._finds_modules_itself():
                self.missing_modules.add(name)
        return UNKNOWN

    def _finds_modules_itself(self) -> bool:
        """Whether the policy says where else its modules are."""
        return any(b"package." in (content or b"") for content in self._source.files.values())

    def _escape(self, value: Value, *, changed: bool = True) -> None:
        if isinstance(value, Closure):
            self._pending.append((value, self._caught > 0))
        elif isinstance(value, Table) and not value.open:
            value.open = True  # here, too, because a table may contain itself
            for item in list(value.entries.values()):
                self._escape(item, changed=changed)
            value.open = changed

    def _is_left(self, function: str) -> bool:
        return self._has_fleet and (delivery_side.is_function(function) or delivery_side.is_module(function))

    def _skip(self, node: Node | None) -> None:
        """What cannot be reached counts as called."""
        if node is not None:
            self._reached.update((self._file, one.start_byte) for one in lua_text.functions(node))

    # --- statements -------------------------------------------------------------------------------------------

    def _block(self, node: Node, scope: Scope) -> bool:
        """Returns whether what stands behind it is never reached."""
        ended = False
        for statement in parts(node):
            if ended and statement.type != "label_statement":
                self._skip(statement)
                continue
            step = _STATEMENTS.get(statement.type)
            ended = step is not None and step(self, statement, scope)
        return ended

    def _call_statement(self, node: Node, scope: Scope) -> bool:
        self.expression(node, scope)
        return isinstance(self._last, Function) and self._last.name in _ENDING

    def _local(self, node: Node, scope: Scope) -> bool:
        inner = parts(node)[0]
        has_values = inner.type == "assignment_statement"
        names = [written(name) for name in parts(parts(inner)[0] if has_values else inner) if name.type == "identifier"]
        values = self._values(parts(inner)[1], scope) if has_values else []
        assigned = self._files[self._file].assigned
        for index, name in enumerate(names):
            value = values[index] if index < len(values) else UNKNOWN
            if name in assigned:
                self._escape(value)
                value = UNKNOWN if has_values or assigned[name] > 1 else UNSET
            scope.names[name] = value
        return False

    def _assignment(self, node: Node, scope: Scope) -> bool:
        targets, expressions = parts(node)
        values = self._values(expressions, scope)
        for index, target in enumerate(parts(targets)):
            self._assign(target, values[index] if index < len(values) else UNKNOWN, scope)
        return False

    def _function(self, node: Node, scope: Scope) -> bool:
        closure = self._closure(node, scope)
        name = field(node, "name")
        if not is_local(node):
            self._assign(name, closure, scope)
        elif written(name) in self._files[self._file].assigned:
            scope.names[written(name)] = UNKNOWN
            self._escape(closure)
        else:
            scope.names[written(name)] = closure
        return False

    def _assign(self, target: Node, value: Value, scope: Scope) -> None:
        if target.type == "identifier":
            name = written(target)
            holder = scope.holder(name) or self._globals
            once = sum(file.assigned[name] for file in self._files.values()) == 1
            if once and holder.names.get(name, UNSET) is UNSET:
                holder.names[name] = value
            else:
                holder.names[name] = UNKNOWN
                self._escape(value)
            return
        base = self.expression(field(target, "table"), scope)
        key = self._key(target, scope)
        if isinstance(base, Table):
            base.as_written = False
            if key is UNKNOWN:
                base.open = True
            elif not base.open:
                base.entries[key] = joined(base.entries[key], value) if key in base.entries else value
                if base.entries[key] is value:
                    return
        if isinstance(base, Thing) and base.kind in self._model.kinds and self._model.kinds[base.kind].read_only:
            absent = Absent(f"cannot set '{key}'", "the object is read-only")
            self.nil_uses.append(NilUse(absent, self._where(target)))
        if isinstance(base, Namespace) and isinstance(key, str):
            self._overridden.add((base.name, key))
        self._escape(value)

    def _if(self, node: Node, scope: Scope) -> bool:
        arms = [node, *node.children_by_field_name("alternative")]
        decided, ends = False, True
        for arm in arms:
            condition = arm.child_by_field_name("condition")
            body = arm.child_by_field_name("consequence") or arm.child_by_field_name("body")
            holds = False if decided else True if condition is None else self._condition(condition, scope)
            if holds is False:
                self._skip(body)
                continue
            ends &= body is not None and self._block(body, Scope(scope))
            decided = holds is True
        return decided and ends

    def _loop(self, node: Node, scope: Scope) -> bool:
        inner = Scope(scope)
        clause = node.child_by_field_name("clause")
        condition = node.child_by_field_name("condition")
        if clause is not None and clause.type == "for_generic_clause":
            names, expressions = parts(clause)
            for value in self._values(expressions, scope):
                self._escape(value)
            inner.names.update(dict.fromkeys((written(name) for name in parts(names)), UNKNOWN))
        elif clause is not None:
            name, *numbers = parts(clause)
            for one in numbers:
                self.expression(one, scope)
            inner.names[written(name)] = UNKNOWN
        elif condition is not None and node.type == "while_statement" and self._condition(condition, scope) is False:
            self._skip(node.child_by_field_name("body"))
            return False
        body = node.child_by_field_name("body")
        if body is not None:
            self._block(body, inner)
        if condition is not None and node.type == "repeat_statement":
            self._condition(condition, inner)
        return False

    def _do(self, node: Node, scope: Scope) -> bool:
        body = node.child_by_field_name("body")
        return body is not None and self._block(body, Scope(scope))

    def _return(self, node: Node, scope: Scope) -> bool:
        values = self._values(parts(node)[0], scope) if parts(node) else [None]
        self._returned[-1].append(values[0] if values else None)
        for value in values[1:]:
            self._escape(value)
        return True

    def _leave(self, _node: Node, _scope: Scope) -> bool:
        return True


def _shape(value: Value) -> object:
    """What makes a difference for a function that is called with a value."""
    return id(value) if isinstance(value, Closure | Table | Namespace | Function) else (type(value), value)


_Statement: TypeAlias = Callable[[Walk, Node, Scope], bool]

_STATEMENTS: dict[str, _Statement] = {
    "function_call": Walk._call_statement,
    "variable_declaration": Walk._local,
    "assignment_statement": Walk._assignment,
    "function_declaration": Walk._function,
    "if_statement": Walk._if,
    "for_statement": Walk._loop,
    "while_statement": Walk._loop,
    "repeat_statement": Walk._loop,
    "do_statement": Walk._do,
    "return_statement": Walk._return,
    "break_statement": Walk._leave,
    "goto_statement": Walk._leave,
}
