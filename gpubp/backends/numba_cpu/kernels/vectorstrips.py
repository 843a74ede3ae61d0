"""Loops over strips written as LLVM vectors, for functions that branch: LLVM leaves them scalar.

Each is `f(out, a, b, n)` on addresses of float32; `out` may be one of the operands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath
from gpubp.backends.numba_cpu.target import lanes

I64 = ir.IntType(64)
FLOAT = ir.FloatType()


def _strip(arity: int, emit: Callable[..., Any]) -> Any:
    """`emit` (math, *operands) -> the result, on vectors."""

    @intrinsic
    def run(_typing: Any, out: Any, a: Any, b: Any, n: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _Loop(builder, args[0], args[1 : 1 + arity], emit).run(args[3])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return run


class _Loop:
    """Whole vectors first, then what is left as one vector in memory of its own."""

    def __init__(self, builder: Any, out: Any, operands: Any, emit: Callable[..., Any]) -> None:
        self.builder, self.out, self.operands, self.emit = builder, out, operands, emit
        self.width = lanes("float32")
        self.vector = ir.VectorType(FLOAT, self.width)

    def run(self, n: Any) -> None:
        """Emit all of it."""
        builder, width = self.builder, I64(self.width)
        room = [low.alloca_once(builder, self.vector) for _ in self.operands]
        whole = builder.udiv(n, width)
        with low.counted(builder, whole) as index:
            offset = builder.mul(index, I64(4 * self.width))
            taken = [self._at(builder.add(x, offset)) for x in self.operands]
            values = [builder.load(pointer, align=4) for pointer in taken]
            target = self._at(builder.add(self.out, offset))
            builder.store(self._result(values), target, align=4)
        rest = builder.urem(n, width)
        with builder.if_then(builder.icmp_unsigned("!=", rest, I64(0))):
            self._rest(builder.mul(whole, width), rest, room)

    def _result(self, values: Any) -> Any:
        return self.emit(VectorMath(self.builder, self.vector), *values)

    def _at(self, address: Any) -> Any:
        return self.builder.inttoptr(address, self.vector.as_pointer())

    def _rest(self, first: Any, count: Any, room: Any) -> None:
        builder = self.builder
        for held in room:
            builder.store(ir.Constant(self.vector, [1.0] * self.width), held)
        with low.counted(builder, count) as index:
            for x, held in zip(self.operands, room):
                value = builder.load(self._element(x, builder.add(first, index)))
                builder.store(value, self._lane(held, index))
        result = self._result([builder.load(held) for held in room])
        builder.store(result, room[0])
        with low.counted(builder, count) as index:
            value = builder.load(self._lane(room[0], index))
            builder.store(value, self._element(self.out, builder.add(first, index)))

    def _element(self, address: Any, i: Any) -> Any:
        return self.builder.gep(self.builder.inttoptr(address, FLOAT.as_pointer()), [i])

    def _lane(self, held: Any, i: Any) -> Any:
        return self.builder.gep(self.builder.bitcast(held, FLOAT.as_pointer()), [i])


# By the entry of `opcodes.FUNCTORS` that they stand for.
VECTOR_STRIPS: dict[str, Any] = {
    "gelu_none": _strip(1, lambda math, a: math.gelu(a)),
    "gelu_grad_none": _strip(2, lambda math, a, b: math.builder.fmul(a, math.gelu_slope(b))),
}
