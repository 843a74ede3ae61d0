"""Expressions of the kernels' `language`: what a syntax tree says, as arithmetic.

A value is a `Value`, a tuple of such, or a Python object: a constant, or something to call.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from typing import Any

from gpubp.backends.numba_cpu.kernels.arithmetic import OF_NUMPY, Arithmetic, Value, common
from gpubp.backends.numba_cpu.kernels.language import Function, Intrinsic, Tuple, types


class _Context:
    """What intrinsics ask for."""

    def get_dummy_value(self) -> Any:
        """The result of a function without one."""
        return None

    def make_tuple(self, _builder: Any, _kind: Any, values: Any) -> Any:
        """Several results."""
        return tuple(values)


class Expressions(Arithmetic):
    """Emits expressions through a builder; a subclass has the variables and the functions."""

    def __init__(self, builder: Any, names: dict[str, Any]) -> None:
        super().__init__(builder)
        self.names = names

    def variable(self, name: str) -> Any:
        """The value of a local variable, or None."""
        raise NotImplementedError

    def called(self, function: Function, arguments: list[Value]) -> Any:
        """A call of another function."""
        raise NotImplementedError

    def expression(self, node: Any) -> Any:
        """Any expression."""
        kind = type(node).__name__
        emit = getattr(self, f"of_{kind.lower()}", None)
        if emit is None:
            raise TypeError(f"{kind} is not in the kernels' language: {ast.unparse(node)}")
        return emit(node)

    def of_constant(self, node: Any) -> Any:
        """A literal."""
        return node.value

    def of_name(self, node: Any) -> Any:
        """A variable or a constant."""
        found = self.variable(node.id)
        return self.names[node.id] if found is None else found

    def of_attribute(self, node: Any) -> Any:
        """Of a module."""
        return getattr(self.expression(node.value), node.attr)

    def of_tuple(self, node: Any) -> Any:
        """Several values."""
        return tuple(self.expression(e) for e in node.elts)

    def of_unaryop(self, node: Any) -> Any:
        """-x, +x, not x."""
        given = self.expression(node.operand)
        if isinstance(node.op, ast.Not):
            test = self.truth(given)
            return (
                not test if isinstance(test, bool) else Value(test.type, self.builder.not_(test.ir))
            )
        if not isinstance(given, Value):
            return -given
        if given.type.kind == "f":
            return Value(given.type, self.builder.fneg(given.ir))
        return Value(given.type, self.builder.neg(given.ir))

    def of_binop(self, node: Any) -> Any:
        """Arithmetic."""
        return self.binary(node.op, self.expression(node.left), self.expression(node.right))

    def of_compare(self, node: Any) -> Any:
        """a < b, and chains of such."""
        values = [self.expression(n) for n in (node.left, *node.comparators)]
        total: Any = True
        for op, left, right in zip(node.ops, values, values[1:]):
            total = self._both(total, self.compared(op, left, right))
        return total

    def _both(self, a: Any, b: Any) -> Any:
        if isinstance(a, bool) or isinstance(b, bool):
            known, other = (a, b) if isinstance(a, bool) else (b, a)
            return other if known else False
        return Value(types.boolean, self.builder.and_(a.ir, b.ir))

    def of_boolop(self, node: Any) -> Any:
        """and, or: what follows is evaluated only where it is needed."""
        stops = isinstance(node.op, ast.Or)
        return self._until(stops, node.values)

    def _until(self, stops: bool, nodes: list[Any]) -> Any:
        first = self.truth(self.expression(nodes[0]))
        if len(nodes) == 1 or first is stops:
            return first
        if isinstance(first, bool):
            return self._until(stops, nodes[1:])

        def known() -> Any:
            return stops

        def rest() -> Any:
            return self._until(stops, nodes[1:])

        return self._either(first, *((known, rest) if stops else (rest, known)))

    def of_ifexp(self, node: Any) -> Any:
        """b if a else c: the one that a constant takes, or the one of two."""
        test = self.truth(self.expression(node.test))
        if isinstance(test, bool):
            return self.expression(node.body if test else node.orelse)
        return self._either(
            test, lambda: self.expression(node.body), lambda: self.expression(node.orelse)
        )

    def _either(self, test: Value, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        builder = self.builder
        names = ("if.then", "if.else", "if.after")
        starts = [builder.append_basic_block(n) for n in names]
        builder.cbranch(test.ir, *starts[:2])
        ends: list[tuple[Any, Any]] = []
        for start, emit in zip(starts, (then, other)):
            builder.position_at_end(start)
            made = emit()
            ends.append((made, builder.block))
        several = isinstance(ends[0][0], tuple)
        members = [
            [self.value(v) for v in made] if several else [self.value(made)] for made, _ in ends
        ]
        kinds = [a.type if a.type == b.type else common(a.type, b.type) for a, b in zip(*members)]
        for i, (_, block) in enumerate(ends):
            builder.position_at_end(block)
            members[i] = [self.cast(v, k) for v, k in zip(members[i], kinds)]
            builder.branch(starts[2])
        builder.position_at_end(starts[2])
        chosen = []
        for kind, *pair in zip(kinds, *members):
            phi = builder.phi(kind.ir)
            for value, (_, block) in zip(pair, ends):
                phi.add_incoming(value.ir, block)
            chosen.append(Value(kind, phi))
        return tuple(chosen) if several else chosen[0]

    def of_call(self, node: Any) -> Any:
        """A function of the language, an intrinsic, a type, or one of Python's own."""
        function = self.expression(node.func)
        arguments = [self.expression(a) for a in node.args]
        if isinstance(function, Function):
            return self.called(function, [self.value(a) for a in arguments])
        if isinstance(function, Intrinsic):
            return self._intrinsic(function, arguments)
        if not any(isinstance(a, Value) for a in arguments):
            return function(*arguments)
        values = [self.value(a) for a in arguments]
        if function in OF_NUMPY:
            return self.cast(values[0], OF_NUMPY[function])
        if function is min or function is max:
            return self.extreme(ast.Lt() if function is min else ast.Gt(), values)
        if function is abs:
            return self.absolute(values[0])
        if function is math.trunc:
            return self.cast(values[0], types.int64)
        return self.library(function, values)

    def _intrinsic(self, function: Intrinsic, arguments: list[Any]) -> Any:
        signature, emit = function.define(None, *arguments)
        values = [self.cast(self.value(a), t).ir for a, t in zip(arguments, signature.args)]
        result = emit(_Context(), self.builder, signature, values)
        kind = signature.return_type
        if isinstance(kind, Tuple):
            return tuple(Value(m, v) for m, v in zip(kind.members, result))
        return 0 if kind.kind == "v" else Value(kind, result)
