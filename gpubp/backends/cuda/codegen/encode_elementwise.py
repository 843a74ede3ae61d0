"""Elementwise ops: one kernel, whole vectors where the operands allow it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpubp.backends.cuda.codegen.chain import chain, operands_of
from gpubp.backends.cuda.codegen.index import Index, VectorIndex
from gpubp.backends.cuda.codegen.writer import Writer
from gpubp.backends.cuda.launch import HEADERS, THREADS, Context, Launch, blocks_for, source
from gpubp.compiler.parts import Operand, Part
from gpubp.core import Shape

VECTOR_BYTES = 16


def walk(n: str, name: str = "i") -> str:
    """The head of a loop in which the threads share 0 <= name < n.

    Most threads go through it once. Unrolled, it would begin with a division, to know how often.
    """
    return "#pragma unroll 1\n" + (
        f"for (gp::i64 {name} = gp::thread_number(); {name} < {n}; {name} += gp::thread_count()) {{"
    )


def elementwise(part: Part, context: Context, shape: Shape | None = None) -> list[Launch]:
    """The launch of elementwise ops over `shape`; the last one's if that is not given."""
    writer = Writer(part, context)
    positions = range(len(part.body))
    shape = part.body[-1].shape if shape is None else shape
    operands = operands_of(part, positions)
    index = Index(writer, "", shape, operands, "i")
    n = writer.params.add("n", math.prod(shape))
    lanes = _vector(part, context, index, operands)
    if lanes > 1:
        body = _by_vectors(writer, positions, index, operands, lanes, n)
    else:
        lines = chain(writer, positions, index, "i", {})
        body = [walk(n), *[f"  {line}" for line in lines], "}"]
    text = source(HEADERS, writer.params, [("kernel", THREADS, [*writer.pointers, *body])])
    grid = (blocks_for(-(-math.prod(shape) // lanes)), 1, 1)
    return [Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)]


def over_rows(writer: Writer, name: str, each: int, lines: Sequence[str]) -> list[str]:
    """A loop of a block's threads over elements `i` of its rows `first` to `stop`, of which each
    has so many; `name`: of the parameter that says how many.
    """
    row = writer.params.add(name, each)
    walked = f"for (gp::i64 i = first * {row} + threadIdx.x; i < stop * {row}; i += blockDim.x) {{"
    return ["#pragma unroll 1", walked, *[f"  {line}" for line in lines], "}"]


def elementwise_rows(part: Part, writer: Writer) -> list[str]:
    """A block's rows of elementwise ops; all elements, where no rows are shared."""
    positions = range(len(part.body))
    shape = part.body[-1].shape
    index = Index(writer, "", shape, operands_of(part, positions), "i")
    lines = chain(writer, positions, index, "i", {})
    return over_rows(writer, "each", math.prod(shape) // max(part.rows, 1), lines)


def _vector(part: Part, context: Context, index: Index, operands: list[Operand]) -> int:
    """Elements that one thread takes at a time: 16 bytes of each array, or 1."""
    walked = [o for o in operands if not VectorIndex.single(index, o)]
    sizes = {o.dtype.itemsize for o in walked}
    if len(sizes) != 1 or sizes & {1, 2} or len(index.dims) > 2:
        return 1
    size = sizes.pop()
    lanes = VECTOR_BYTES // size
    rows = len(index.dims) == 2
    if rows and (not index.short or index.dims[1] % lanes):
        return 1
    if not all(VectorIndex.takes(index, o) for o in walked):
        return 1
    for operand in walked:
        start, entry = context.locate(operand.buffer)
        if entry is not None or (start + operand.offset * size) % VECTOR_BYTES:
            return 1
    return lanes


def _by_vectors(
    writer: Writer,
    positions: Sequence[int],
    index: Index,
    operands: list[Operand],
    lanes: int,
    n: str,
) -> list[str]:
    """Whole vectors first, then what is left, element by element."""
    whole = f"({n} / {lanes})"
    single = chain(writer, positions, index, "i", {})
    vectors = VectorIndex(writer, index, lanes)
    inner = chain(writer, positions, vectors, "i", {})
    return [
        walk(whole, "g"),
        *[f"  {line}" for line in vectors.loads],
        "  #pragma unroll",
        f"  for (int j = 0; j < {lanes}; ++j) {{",
        f"    const gp::i64 i = g * {lanes} + j;",
        *[f"    {line}" for line in inner],
        "  }",
        *[f"  {line}" for line in vectors.stores],
        "}",
        "#pragma unroll 1",
        f"for (gp::i64 i = {whole} * {lanes} + gp::thread_number(); i < {n}; "
        "i += gp::thread_count()) {",
        *[f"  {line}" for line in single],
        "}",
    ]
