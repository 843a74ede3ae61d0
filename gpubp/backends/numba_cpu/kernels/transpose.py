"""Whole vectors moved: a block transposed in registers, a row copied."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I32, I64, ITEMSIZE, LLVM_OF
from gpubp.backends.numba_cpu.target import lanes


def make_transpose(kind: Any) -> Any:
    """`transpose(source, source_row, target, target_row)`: a square block of `lanes` by `lanes`.

    Strides in bytes; rows are contiguous. Eklundh's method: log2(lanes) rounds of exchanges.
    """
    width, item = lanes(kind), ITEMSIZE[kind]
    vector = ir.VectorType(LLVM_OF[kind], width)

    @intrinsic
    def transpose(_typing: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            def pointer(base: Any, stride: Any, i: int) -> Any:
                at = builder.add(base, builder.mul(stride, I64(i)))
                return builder.inttoptr(at, vector.as_pointer())

            rows = [builder.load(pointer(args[0], args[1], i), align=item) for i in range(width)]
            step = 1
            while step < width:
                rows = exchange(builder, rows, step)
                step *= 2
            for i, row in enumerate(rows):
                builder.store(row, pointer(args[2], args[3], i), align=item)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return transpose


def make_copy(kind: Any, vectors: int, width: int) -> Any:
    """`copy(source, target)`: some vectors of `width` elements that lie back to back."""
    item = ITEMSIZE[kind]
    pointer = ir.VectorType(LLVM_OF[kind], width).as_pointer()

    @intrinsic
    def copy(_typing: Any, source: Any, target: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            for i in range(vectors):
                source, target = (builder.add(a, I64(i * width * item)) for a in args)
                value = builder.load(builder.inttoptr(source, pointer), align=item)
                builder.store(value, builder.inttoptr(target, pointer), align=item)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return copy


def exchange(builder: Any, rows: list[Any], step: int) -> list[Any]:
    """Swap the off-diagonal halves of every 2 x 2 block of `step` x `step` blocks. Fewer rows than
    lanes are blocks side by side, each turned in its place.
    """
    width = rows[0].type.count
    kind = ir.VectorType(I32, width)
    upper = [i if not i & step else width + i - step for i in range(width)]
    lower = [i + step if not i & step else width + i for i in range(width)]
    out = list(rows)
    for i in range(len(rows)):
        if not i & step:
            a, b = rows[i], rows[i + step]
            out[i] = builder.shuffle_vector(a, b, ir.Constant(kind, upper))
            out[i + step] = builder.shuffle_vector(a, b, ir.Constant(kind, lower))
    return out
