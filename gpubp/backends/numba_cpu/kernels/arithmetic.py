"""Arithmetic of the kernels' `language`: constants are folded, all else is emitted."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.language import Type, types

OF_NUMPY: dict[Any, Type] = {
    np.bool_: types.boolean,
    np.uint8: types.uint8,
    np.uint32: types.uint32,
    np.uint64: types.uint64,
    np.int32: types.int32,
    np.int64: types.int64,
    np.float32: types.float32,
    np.float64: types.float64,
    int: types.int64,
    float: types.float64,
    bool: types.boolean,
}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.Pow: operator.pow,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_COMPARED: dict[type, str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_FLOAT = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
_WHOLE = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "shl",
}
# LLVM's own functions; all others of `math` are libm's.
_INTRINSICS = {
    math.sqrt: "sqrt",
    math.sin: "sin",
    math.cos: "cos",
    math.log: "log",
    math.pow: "pow",
    np.floor: "floor",
}
_LIBM: dict[Any, str] = {
    math.erf: "erf",
    math.erfc: "erfc",
    math.expm1: "expm1",
    math.log1p: "log1p",
}
_LIBM |= {math.tanh: "tanh", math.atan: "atan", math.fmod: "fmod"}


@dataclass(slots=True)
class Value:
    """A number that the code computes."""

    type: Type
    ir: Any


def common(a: Type, b: Type) -> Type:
    """The type in which two numbers are added."""
    if a == b and (a.kind == "f" or a.bits == 64):
        return a
    if "f" in (a.kind, b.kind):
        single: Type = types.float32
        return single if {a, b} <= {single, types.boolean} else OF_NUMPY[float]
    if types.uint64 in (a, b) and "i" in (a.kind, b.kind):
        raise TypeError("int64 with uint64")
    whole: Type = types.uint64 if a.kind == b.kind == "u" else types.int64
    return whole


class Arithmetic:
    """Emits arithmetic through a builder."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def value(self, given: Any) -> Value:
        """A number, where a constant is one too."""
        if isinstance(given, Value):
            return given
        kind = OF_NUMPY[type(given)]
        number = float(given) if kind.kind == "f" else int(given)
        return Value(kind, ir.Constant(kind.ir, number))

    def cast(self, given: Value, kind: Type) -> Value:
        """As another type."""
        old, builder = given.type, self.builder
        if old == kind:
            return given
        if kind.kind == "b":
            zero = self.cast(self.value(0), old)
            return self.compare(ast.NotEq(), given, zero)
        if old.kind == "f":
            if kind.kind == "f":
                name = "fpext" if kind.bits > old.bits else "fptrunc"
            else:
                name = "fptosi" if kind.kind == "i" else "fptoui"
        elif kind.kind == "f":
            name = "sitofp" if old.kind == "i" else "uitofp"
        elif kind.bits < old.bits:
            name = "trunc"
        elif kind.bits > old.bits:
            name = "sext" if old.kind == "i" else "zext"
        else:
            return Value(kind, given.ir)
        if isinstance(given.ir, ir.Constant) and name in ("sitofp", "sext", "zext"):
            number = given.ir.constant
            return Value(kind, ir.Constant(kind.ir, float(number) if kind.kind == "f" else number))
        return Value(kind, getattr(builder, name)(given.ir, kind.ir))

    def truth(self, given: Any) -> Any:
        """A bool known now, or a boolean value."""
        return self.cast(given, types.boolean) if isinstance(given, Value) else bool(given)

    def binary(self, op: Any, left: Any, right: Any) -> Any:
        """Arithmetic of two values."""
        if not isinstance(left, Value) and not isinstance(right, Value):
            return _OPERATORS[type(op)](left, right)
        a, b = self.value(left), self.value(right)
        if isinstance(op, (ast.BitAnd, ast.BitOr, ast.BitXor)) and a.type == b.type:
            kind = a.type
        else:
            kind = common(a.type, b.type)
        if isinstance(op, ast.Div) and kind.kind != "f":
            kind = types.float64
        a, b = self.cast(a, kind), self.cast(b, kind)
        if kind.kind == "f":
            return Value(kind, getattr(self.builder, _FLOAT[type(op)])(a.ir, b.ir))
        if isinstance(op, ast.RShift):
            name = "ashr" if kind.kind == "i" else "lshr"
        elif isinstance(op, (ast.FloorDiv, ast.Mod)):
            return self._divided(a, b, isinstance(op, ast.Mod))
        else:
            name = _WHOLE[type(op)]
        return Value(kind, getattr(self.builder, name)(a.ir, b.ir))

    def _divided(self, a: Value, b: Value, rest: bool) -> Value:
        """a // b or a % b, rounded down; 0 where b is."""
        builder, kind = self.builder, a.type
        zero, one = kind.ir(0), kind.ir(1)
        fixed = isinstance(b.ir, ir.Constant)
        none = None if fixed else builder.icmp_signed("==", b.ir, zero)
        by = b.ir if none is None else builder.select(none, one, b.ir)
        if kind.kind == "u":
            result = builder.urem(a.ir, by) if rest else builder.udiv(a.ir, by)
        else:
            left = builder.srem(a.ir, by)
            apart = builder.icmp_signed("<", builder.xor(left, by), zero)
            down = builder.and_(builder.icmp_signed("!=", left, zero), apart)
            if rest:
                result = builder.select(down, builder.add(left, by), left)
            else:
                result = builder.sub(builder.sdiv(a.ir, by), builder.zext(down, kind.ir))
        return Value(kind, result if none is None else builder.select(none, zero, result))

    def compared(self, op: Any, left: Any, right: Any) -> Any:
        """A comparison, of constants now."""
        if not isinstance(left, Value) and not isinstance(right, Value):
            return bool(_OPERATORS[type(op)](left, right))
        a, b = self.value(left), self.value(right)
        kind = a.type if a.type == b.type else common(a.type, b.type)
        return self.compare(op, self.cast(a, kind), self.cast(b, kind))

    def compare(self, op: Any, a: Value, b: Value) -> Value:
        """A comparison of two numbers of one type."""
        sign = _COMPARED[type(op)]
        if a.type.kind == "f":
            unordered = sign == "!="
            emit = self.builder.fcmp_unordered if unordered else self.builder.fcmp_ordered
        else:
            emit = self.builder.icmp_signed if a.type.kind == "i" else self.builder.icmp_unsigned
        return Value(types.boolean, emit(sign, a.ir, b.ir))

    def extreme(self, op: Any, values: list[Value]) -> Value:
        """The later one where it is smaller (larger)."""
        best = values[0]
        for value in values[1:]:
            kind = best.type if best.type == value.type else common(best.type, value.type)
            best, value = self.cast(best, kind), self.cast(value, kind)
            test = self.compare(op, value, best)
            best = Value(kind, self.builder.select(test.ir, value.ir, best.ir))
        return best

    def absolute(self, given: Value) -> Value:
        if given.type.kind == "f":
            return self._call(f"llvm.fabs.f{given.type.bits}", [given])
        below = self.builder.icmp_signed("<", given.ir, given.type.ir(0))
        return Value(given.type, self.builder.select(below, self.builder.neg(given.ir), given.ir))

    def library(self, function: Any, values: list[Value]) -> Value:
        kind = values[0].type if values[0].type.kind == "f" else types.float64
        values = [self.cast(v, kind) for v in values]
        if function in _INTRINSICS:
            return self._call(f"llvm.{_INTRINSICS[function]}.f{kind.bits}", values)
        return self._call(_LIBM[function] + ("f" if kind.bits == 32 else ""), values)

    def _call(self, name: str, values: list[Value]) -> Value:
        module, kind = self.builder.module, values[0].type
        found = module.globals.get(name)
        if found is None:
            declared = ir.FunctionType(kind.ir, [kind.ir] * len(values))
            found = ir.Function(module, declared, name)
        return Value(kind, self.builder.call(found, [v.ir for v in values]))
