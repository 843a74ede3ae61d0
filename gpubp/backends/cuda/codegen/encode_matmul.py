"""Matrix products: who computes them; our own: tiles, chunks of k, and what follows a product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from gpubp.backends.cuda.codegen.encode_product import launches, lower
from gpubp.backends.cuda.codegen.writer import Index, Writer, chain, ctype_of, operands_of
from gpubp.backends.cuda.launch import HEADERS, THREADS, AnyLaunch, Context, Launch, source
from gpubp.backends.cuda.products import Plan as LibraryPlan
from gpubp.compiler.program import Operand, Part
from gpubp.compiler.views import matrix_batch_stride

# Tiles, the largest first: rows and columns of C, k of a slice, then the sums of a thread (for
# tensor cores, of a warp) along both. Whether there are enough of them decides; where they are
# few, k is split.
_Tile = tuple[int, int, int, int, int]
_TILES: tuple[_Tile, ...] = ((128, 128, 8, 8, 8), (64, 64, 16, 4, 4), (32, 32, 16, 2, 2))
_TENSOR_TILES: tuple[_Tile, ...] = ((128, 128, 32, 64, 32), (64, 64, 32, 32, 32))
_TYPES = {"tf32": "gp::Tf32", "bf16": "gp::Bf16", "float16": "gp::Fp16"}
MIN_CHUNK = 256  # of k
MAX_CHUNKS = 64
MAX_GRID = 65535  # along y and z


@dataclass(frozen=True)
class Plan:
    """How a product is shared: the tile, tiles along rows and columns, pieces of k.

    `type`: the class of tensor.cuh that A and B are rounded to; "" for none.
    """

    tile: _Tile
    rows: int
    columns: int
    chunks: int
    chunk: int
    type: str

    @property
    def threads(self) -> int:
        bm, bn, _, tm, tn = self.tile
        return (bm // tm) * (bn // tn) * (32 if self.type else 1)

    def call(self, dtype: str, flags: str) -> str:
        """The function with its template's arguments."""
        bm, bn, bk, tm, tn = self.tile
        if self.type:
            return f"gp::gemm_tensor<{self.type}, {bm}, {bn}, {tm}, {tn}, {flags}>"
        return f"gp::gemm<{dtype}, {bm}, {bn}, {bk}, {tm}, {tn}, {flags}>"


def plan(
    batches: int, m: int, n: int, k: int, itemsize: int, processors: int, precision: str = "float32"
) -> Plan:
    """The largest tile that keeps every multiprocessor busy, else the smallest and pieces of k."""
    kind = _TYPES.get(precision, "") if itemsize == 4 else ""
    for tile in _TENSOR_TILES if kind else _TILES[itemsize > 4 :]:
        rows, columns = -(-m // tile[0]), -(-n // tile[1])
        if batches * rows * columns >= processors:
            break
    blocks = max(1, batches * rows * columns)
    chunks = max(1, min(2 * processors // blocks, k // MIN_CHUNK, MAX_CHUNKS))
    step = tile[2]
    chunk = max(step, -(-k // chunks // step) * step)
    return Plan(tile, rows, columns, max(1, -(-k // chunk)), chunk, kind)


def matmul(part: Part, context: Context) -> list[AnyLaunch]:
    """The launches of a part built around a matrix product: the library's, or our own.

    Raises:
        BackendError: the library failed.
    """

    def theirs(here: Context, plan: LibraryPlan) -> list[AnyLaunch]:
        lowered = lower(part, here)
        assert lowered is not None
        return launches(part, lowered, plan, here)

    lowered = lower(part, context)
    if lowered is not None and context.chooser is not None:
        own = partial(tiled, part)
        plan = context.chooser.choose(part, lowered.problem, context, own, theirs)
        if plan is not None:
            return launches(part, lowered, plan, context)
    return [*tiled(part, context)]


def tiled(part: Part, context: Context) -> list[Launch]:
    """The launches of our own kernels."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    a, b = (part.inputs[i] for i in compute.args)
    *batch, m, n = compute.shape
    k, batches, size = a.shape[-1], math.prod(batch), compute.dtype.itemsize
    found = plan(batches, m, n, k, size, context.processors, context.precision)
    grid = (found.rows, min(found.columns, MAX_GRID), min(batches * found.chunks, MAX_GRID))
    writer = Writer(part, context)
    dtype = ctype_of(compute.dtype)
    names = (("m", m), ("n", n), ("k", k), ("chunk", found.chunk), ("chunks", found.chunks))
    for name, number in (*names, ("batches", batches)):
        writer.params.add(name, number)
    lines = _matrices(writer, a, b, tuple(batch))
    finish = [
        f"auto finish = [&](gp::i64 batch, gp::i64 row, gp::i64 column, {dtype} total) {{",
        *[f"  {line}" for line in _after(writer, part)],
        "};",
    ]
    lines += _split_store(writer, context, dtype, batches * m * n, found)
    flags = ", ".join("true" if o.strides[d] == 1 else "false" for o, d in ((a, -1), (b, -2)))
    lines += _tiles(writer, found, found.call(dtype, flags))
    walk = "for (gp::i64 z = blockIdx.z; z < p.batches * p.chunks; z += gridDim.z) {"
    lines = [walk, *[f"  {line}" for line in lines], "}"]
    kernels = [("kernel", found.threads, [*writer.pointers, *finish, *lines])]
    if found.chunks > 1:
        kernels.append(("kernel_finish", THREADS, [*writer.pointers, *finish, *_join(dtype)]))
        writer.params.add("count", batches * m * n)
    headers = [*HEADERS, "tensor" if found.type else "gemm"]
    text, params = source(headers, writer.params, kernels), writer.params.pack()
    made = [Launch(text, "kernel", grid, (found.threads, 1, 1), params, part.name)]
    if found.chunks > 1:
        grid = (-(-batches * m * n // THREADS), 1, 1)
        made.append(Launch(text, "kernel_finish", grid, (THREADS, 1, 1), params, part.name))
    return made


def _tiles(writer: Writer, found: Plan, call: str) -> list[str]:
    """Compute this block's tile of C; more than one, where a grid cannot number all columns'."""

    def tile(column: str) -> list[str]:
        return [
            f"{call}(",
            f"  a, b, p.m, p.n, k0, gp::least(k0 + p.chunk, p.k), blockIdx.x, {column}, store);",
            "__syncthreads();",  # before the next product takes the shared memory
        ]

    if found.columns <= MAX_GRID:
        return tile("blockIdx.y")
    columns = writer.params.add("columns", found.columns)
    walk = f"for (gp::i64 column = blockIdx.y; column < {columns}; column += gridDim.y) {{"
    return [walk, *[f"  {line}" for line in tile("column")], "}"]


def _matrices(writer: Writer, a: Operand, b: Operand, batch: tuple[int, ...]) -> list[str]:
    """Declare the operands of this block's product, and where its chunk of k starts."""
    dtype = ctype_of(a.dtype)
    lines = [
        "const gp::i64 batch = z / p.chunks, piece = z % p.chunks;",
        "const gp::i64 k0 = piece * p.chunk;",
    ]
    for name, operand, line, step in (("a", a, -2, -1), ("b", b, -1, -2)):
        walk = matrix_batch_stride(operand.shape, operand.strides, batch)
        assert walk is not None
        numbers = [
            writer.params.add(f"{name}_{what}", value)
            for what, value in (
                ("batch", walk),
                ("line", operand.strides[line]),
                ("step", operand.strides[step]),
            )
        ]
        start = f"{writer.pointer(operand)} + batch * {numbers[0]}"
        lines.append(f"const gp::Matrix<{dtype}> {name} = {{{start}, {numbers[1]}, {numbers[2]}}};")
    return lines


def _after(writer: Writer, part: Part) -> list[str]:
    """What is done with a finished sum at (batch, row, column)."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    made = len(part.inputs) + part.anchor
    positions = [i for i in range(len(part.body)) if i != part.anchor]
    operands = operands_of(part, positions, [part.anchor])
    index = Index(writer, "c", compute.shape, operands, "batch", ("row", "column"))
    whole = "((batch * p.m + row) * p.n + column)"
    lines = chain(writer, positions, index, whole, {made: "total"})
    target = dict(part.outputs).get(made)
    if target is not None:
        lines.append(index.write(target, "total"))
    return lines


def _split_store(
    writer: Writer, context: Context, dtype: str, elements: int, found: Plan
) -> list[str]:
    """A function that takes sums: finishes them, or keeps those of a chunk of k."""
    head = f"auto store = [&](gp::i64 row, gp::i64 column, {dtype} sum) {{"
    if found.chunks == 1:
        return [head, "  finish(batch, row, column, sum);", "};"]
    room = context.workspace.need(elements * found.chunks * 8)
    partials = f"gp::fixed<{dtype}>({writer.params.add('partials', room, 'gp::u64')})"
    at = "((piece * p.batches + batch) * p.m + row) * p.n + column"
    return [f"{dtype}* partials = {partials};", head, f"  partials[{at}] = sum;", "};"]


def _join(dtype: str) -> list[str]:
    """The second kernel of a split product: one thread an element of C."""
    return [
        "const gp::i64 i = gp::thread_number();",
        "if (i >= p.count) return;",
        f"const {dtype}* partials = gp::fixed<const {dtype}>(p.partials);",
        f"const {dtype} total = gp::finish_chunks<{dtype}>(partials + i, p.chunks, p.count);",
        "finish(i / (p.m * p.n), i / p.n % p.m, i % p.n, total);",
    ]
