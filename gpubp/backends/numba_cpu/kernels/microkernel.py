"""The heart of the matrix product: one register tile of C, accumulated over all of K.

Written as LLVM vectors: `rows` broadcasts of A times `vectors` vectors of B, accumulators in phi
nodes, fused multiply-add where the CPU has it. Each element of C is the same chain of operations
whatever tile it falls into (k ascending, one accumulator), so results do not depend on tiling.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpubp.backends.numba_cpu.kernels.lowlevel import I32, I64, LLVM_OF


def host_features() -> dict[str, bool]:
    """CPU features as LLVM names them."""
    return dict(llvm.get_host_cpu_features())


def lanes(kind: Any) -> int:
    """Elements in a vector register."""
    features = host_features()
    width = 64 if features.get("avx512f") else (32 if features.get("avx") else 16)
    return width // (4 if kind is types.float32 else 8)


def tile_rows() -> int:
    """Rows of the largest tile: 16 accumulators where there are 32 registers, else 8."""
    return 8 if host_features().get("avx512f") else 4


def has_fma() -> bool:
    """A fused multiply-add instruction (x86 from 2013 on; every arm64)."""
    features = host_features()
    return bool(features.get("fma") or features.get("neon") or "arm" in llvm.get_host_cpu_name())


def make_tile(kind: Any, rows: int, vectors: int, masked: bool) -> Any:
    """`tile(k, a, a_row, a_col, b, b_row, c, c_row, columns)`: C tile = A rows @ B panel.

    All strides are in bytes. A is (rows, k) with any strides; B is (k, columns) and C is (rows,
    columns), both contiguous along columns. `masked`: only the first `columns` lanes exist
    (vectors must be 1).
    """
    width = lanes(kind)
    scalar = LLVM_OF[kind]
    vector = ir.VectorType(scalar, width)
    name = f"v{width}f{32 if kind is types.float32 else 64}"
    signature = types.void(*[types.int64] * 9)

    @intrinsic
    def tile(
        _typing: Any, k: Any, a: Any, ar: Any, ac: Any, b: Any, br: Any, c: Any, cr: Any, n: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _emit(builder, args, scalar, vector, name, rows, vectors, masked)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _emit(
    builder: Any,
    args: Any,
    scalar: Any,
    vector: Any,
    name: str,
    rows: int,
    vectors: int,
    masked: bool,
) -> None:
    k, a, a_row, a_col, b, b_row, c, c_row, columns = args
    mask = _lane_mask(builder, vector.count, columns) if masked else None
    item = 4 if isinstance(scalar, ir.FloatType) else 8
    zero = ir.Constant(vector, [0.0] * vector.count)
    entry = builder.block
    loop = builder.append_basic_block("k.loop")
    done = builder.append_basic_block("k.done")
    builder.cbranch(builder.icmp_signed(">", k, I64(0)), loop, done)

    builder.position_at_end(loop)
    step = builder.phi(I64)
    at_a, at_b = builder.phi(I64), builder.phi(I64)
    sums = [builder.phi(vector) for _ in range(rows * vectors)]
    fresh = _multiply_add(
        builder, sums, at_a, at_b, a_row, scalar, vector, name, rows, vectors, item, mask
    )
    following = builder.add(step, I64(1))
    for phi, start, new in (
        (step, I64(0), following),
        (at_a, a, builder.add(at_a, a_col)),
        (at_b, b, builder.add(at_b, b_row)),
        *[(s, zero, f) for s, f in zip(sums, fresh)],
    ):
        phi.add_incoming(start, entry)
        phi.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, k), loop, done)

    builder.position_at_end(done)
    for i in range(rows):
        for j in range(vectors):
            total = builder.phi(vector)
            total.add_incoming(zero, entry)
            total.add_incoming(fresh[i * vectors + j], loop)
            sums[i * vectors + j] = total
    for i in range(rows):
        row = builder.add(c, builder.mul(c_row, I64(i)))
        for j in range(vectors):
            at = builder.add(row, I64(j * vector.count * item))
            _store(builder, sums[i * vectors + j], at, vector, name, item, mask)


def _multiply_add(
    builder: Any,
    sums: list[Any],
    at_a: Any,
    at_b: Any,
    a_row: Any,
    scalar: Any,
    vector: Any,
    name: str,
    rows: int,
    vectors: int,
    item: int,
    mask: Any,
) -> list[Any]:
    panel = [
        _load(builder, builder.add(at_b, I64(j * vector.count * item)), vector, name, item, mask)
        for j in range(vectors)
    ]
    fma = None
    if has_fma():
        kind = ir.FunctionType(vector, [vector] * 3)
        fma = _declare(builder.module, f"llvm.fma.{name}", kind)
    fresh = []
    for i in range(rows):
        address = builder.add(at_a, builder.mul(a_row, I64(i)))
        value = builder.load(builder.inttoptr(address, scalar.as_pointer()), align=item)
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
        spread = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
        splat = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), spread)
        for j in range(vectors):
            before = sums[i * vectors + j]
            if fma is not None:
                fresh.append(builder.call(fma, [splat, panel[j], before]))
            else:
                fresh.append(builder.fadd(builder.fmul(splat, panel[j]), before))
    return fresh


def make_transpose(kind: Any) -> Any:
    """`transpose(source, source_row, target, target_row)`: a square block of `lanes` by `lanes`.

    Strides in bytes; rows are contiguous. Eklundh's method: log2(lanes) rounds of exchanges.
    """
    width = lanes(kind)
    scalar = LLVM_OF[kind]
    vector = ir.VectorType(scalar, width)
    item = 4 if kind is types.float32 else 8

    @intrinsic
    def transpose(_typing: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            source, source_row, target, target_row = args
            rows = []
            for i in range(width):
                at = builder.add(source, builder.mul(source_row, I64(i)))
                rows.append(_load(builder, at, vector, "", item, None))
            step = 1
            while step < width:
                rows = _exchange(builder, rows, step)
                step *= 2
            for i, row in enumerate(rows):
                at = builder.add(target, builder.mul(target_row, I64(i)))
                _store(builder, row, at, vector, "", item, None)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return transpose


def _exchange(builder: Any, rows: list[Any], step: int) -> list[Any]:
    """Swap the off-diagonal halves of every 2 x 2 block of `step` x `step` blocks."""
    width = len(rows)
    kind = ir.VectorType(I32, width)
    upper = [i if not i & step else width + i - step for i in range(width)]
    lower = [i + step if not i & step else width + i for i in range(width)]
    out = list(rows)
    for i in range(width):
        if not i & step:
            a, b = rows[i], rows[i + step]
            out[i] = builder.shuffle_vector(a, b, ir.Constant(kind, upper))
            out[i + step] = builder.shuffle_vector(a, b, ir.Constant(kind, lower))
    return out


def _lane_mask(builder: Any, width: int, columns: Any) -> Any:
    """Lane i exists if i < columns."""
    kind = ir.VectorType(I64, width)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), columns, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, width), [0] * width)
    limit = builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)
    return builder.icmp_signed("<", ir.Constant(kind, list(range(width))), limit)


def _load(builder: Any, address: Any, vector: Any, name: str, item: int, mask: Any) -> Any:
    pointer = builder.inttoptr(address, vector.as_pointer())
    if mask is None:
        return builder.load(pointer, align=item)
    bits = ir.VectorType(ir.IntType(1), vector.count)
    kind = ir.FunctionType(vector, [vector.as_pointer(), I32, bits, vector])
    function = _declare(builder.module, f"llvm.masked.load.{name}.p0", kind)
    empty = ir.Constant(vector, [0.0] * vector.count)
    return builder.call(function, [pointer, I32(item), mask, empty])


def _store(
    builder: Any, value: Any, address: Any, vector: Any, name: str, item: int, mask: Any
) -> None:
    pointer = builder.inttoptr(address, vector.as_pointer())
    if mask is None:
        builder.store(value, pointer, align=item)
        return
    bits = ir.VectorType(ir.IntType(1), vector.count)
    kind = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, bits])
    function = _declare(builder.module, f"llvm.masked.store.{name}.p0", kind)
    builder.call(function, [value, pointer, I32(item), mask])


def _declare(module: Any, name: str, kind: Any) -> Any:
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, kind, name)
