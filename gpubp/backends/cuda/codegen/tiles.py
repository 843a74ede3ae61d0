"""Our own kernels of products: which tile, pieces of k, and the sources around a tile.

Comes in: sizes, and lines that declare the factors and take a finished sum. Goes out: the launches.
Matrix products and convolutions differ in these lines alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpubp.backends.cuda.codegen.writer import Writer, ctype_of, number_of
from gpubp.backends.cuda.launch import HEADERS, THREADS, Context, Launch, source
from gpubp.compiler.parts import PRODUCT, Part

# Tiles, the largest first: rows and columns of C, k of a slice, then the sums of a thread (for
# tensor cores, of a warp) along both. Whether there are enough of them decides; where they are
# few, k is split.
_Tile = tuple[int, int, int, int, int]
_TILES: tuple[_Tile, ...] = ((128, 128, 8, 8, 8), (64, 64, 16, 4, 4), (32, 32, 16, 2, 2))
# In place of the smallest, where k is long enough: with its threads in so many groups, or half as
# many for float64, whose slices have 48 KiB of shared memory too.
_GROUPED: _Tile = (32, 32, 16, 4, 4)
GROUPS, GROUPED_FROM = 4, 64
# Of one block of 256 threads that has a few rows: with the BK and the groups of the tiles above, so
# that sums are the same to the bit. For each size of a number, tiles of k up to GROUPED_FROM, then
# of longer ones, with their groups; narrow ones first.
_ROW_TILES: dict[int, tuple[tuple[tuple[_Tile, int], ...], ...]] = {
    4: (
        (((16, 16, 16, 1, 1), 1), ((32, 32, 16, 2, 2), 1)),
        (((4, 32, 16, 1, 2), GROUPS), (_GROUPED, GROUPS)),
    ),
    8: (
        (((16, 16, 16, 1, 1), 1), ((32, 32, 16, 2, 2), 1)),
        (((8, 32, 16, 1, 2), GROUPS // 2), ((32, 32, 16, 4, 2), GROUPS // 2)),
    ),
}
_TENSOR_TILES: tuple[_Tile, ...] = ((128, 128, 32, 64, 32), (64, 64, 32, 32, 32))
_TYPES = {"tf32": "gp::Tf32", "bf16": "gp::Bf16", "float16": "gp::Fp16"}
# Of the largest float32 tile a multiprocessor holds, at least; 0: as the compiler likes. With 2,
# NVRTC 13.5 spills a few words on most architectures; without, it takes up to 166 registers: one.
LEAST_BLOCKS = 0
STAGED_THREADS = 512  # of a multiprocessor, at least, where factors are rounded before
MIN_CHUNK = 256  # of k
MAX_CHUNKS = 64
MAX_GRID = 65535  # along y and z


@dataclass(frozen=True)
class Plan:
    """How a product is shared: the tile, tiles along rows and columns, pieces of k.

    `type`: the class of tensor.cuh that A and B are rounded to; "" for none. `groups`: of threads,
    which share the slices of k. `staged`: A and B are of that type in memory (staged.cuh).
    """

    tile: _Tile
    rows: int
    columns: int
    chunks: int
    chunk: int
    type: str
    groups: int = 1
    staged: bool = False

    @property
    def threads(self) -> int:
        bm, bn, _, tm, tn = self.tile
        return (bm // tm) * (bn // tn) * (32 if self.type else self.groups)

    def call(self, dtype: str) -> str:
        """The function with its template's arguments."""
        bm, bn, bk, tm, tn = self.tile
        if self.type:
            name = "gemm_staged" if self.staged else "gemm_tensor"
            return f"gp::{name}<{self.type}, {bm}, {bn}, {tm}, {tn}>"
        return f"gp::gemm<{dtype}, {bm}, {bn}, {bk}, {tm}, {tn}, {self.groups}>"

    @property
    def header(self) -> str:
        """The one that has the function."""
        return "staged" if self.staged else "tensor" if self.type else "gemm"


def plan(
    batches: int,
    m: int,
    n: int,
    k: int,
    itemsize: int,
    processors: int,
    precision: str = "float32",
    grouped: bool = False,
) -> Plan:
    """The largest tile that keeps every multiprocessor busy, else the smallest and pieces of k;
    `grouped`: several threads of a block may share the steps of one sum.
    """
    kind = _TYPES.get(precision, "") if itemsize == 4 else ""
    tiles = _TENSOR_TILES if kind else _TILES[itemsize > 4 :]
    for tile in tiles:
        rows, columns = -(-m // tile[0]), -(-n // tile[1])
        if batches * rows * columns >= processors:
            break
    blocks = max(1, batches * rows * columns)
    chunks = max(1, min(2 * processors // blocks, k // MIN_CHUNK, MAX_CHUNKS))
    step = tile[2]
    chunk = max(step, -(-k // chunks // step) * step)
    groups = 1
    if grouped and tile == _TILES[-1] and not kind and min(k, chunk) >= GROUPED_FROM:
        tile, groups = _GROUPED, GROUPS * 4 // itemsize
    return Plan(tile, rows, columns, max(1, -(-k // chunk)), chunk, kind, groups)


def row_tile(rows: int, k: int, itemsize: int) -> tuple[_Tile, int]:
    """The tile, and the groups of threads, of a block of 256 threads that has so many rows."""
    tiles = _ROW_TILES[itemsize][k >= GROUPED_FROM]
    return next((t for t in tiles if rows <= t[0][0]), tiles[-1])


@dataclass(frozen=True)
class Product:
    """Products C = A B of (m, k) and (k, n), all of them of one kind.

    Attributes:
        batches: how many results of m rows and n columns.
        m, n, k: sizes; m and k of the largest, if they are divided into parts.
        factors: lines that declare the factors a and b of the product `batch` (and `turn`).
        after: lines that take `total` at (`batch`, `row`, `column`) of a result.
        turns: a result's rows are divided among so many products.
        result_rows: how many there are then; else m.
        rows, depth: what says how many rows and steps of k a product has.
        place: of a product's row `line`, the row in the result.
        opening: lines that stand before all others.
        headers: that the lines need, beside those of products.
        grouped: see `plan`.
        staged: see `Plan`.
    """

    batches: int
    m: int
    n: int
    k: int
    factors: Sequence[str]
    after: Sequence[str]
    turns: int = 1
    result_rows: int = 0
    rows: str = "p.m"
    depth: str = "p.k"
    place: str = "line"
    opening: Sequence[str] = ()
    headers: Sequence[str] = ()
    grouped: bool = False
    staged: bool = False

    def launches(self, part: Part, writer: Writer, context: Context) -> list[Launch]:
        """The kernel of all products, and one that adds pieces of k up if there are any.

        The lines of the product must have been made with `writer`.
        """
        compute = part.body[part.anchor or 0]
        dtype, layers = ctype_of(compute.dtype), self.batches * self.turns
        found = plan(
            *(layers, self.m, self.n, self.k, compute.dtype.itemsize),
            *(context.processors, context.precision, self.grouped),
        )
        found = replace(found, staged=self.staged)
        self._sizes(writer, found)
        finish = [
            f"auto finish = [&](gp::i64 batch, gp::i64 row, gp::i64 column, {dtype} total) {{",
            *[f"  {line}" for line in self.after],
            "};",
        ]
        lines = [*self._layer(), *self.factors]
        lines += self._store(writer, context, dtype, found)
        lines += self._tiles(writer, found, found.call(dtype))
        walk = "for (gp::i64 z = blockIdx.z; z < p.layers * p.chunks; z += gridDim.z) {"
        lines = [walk, *[f"  {line}" for line in lines], "}"]
        first = [*writer.pointers, *self.opening, *finish]
        kernels = [("kernel", found.threads, [*first, *lines])]
        if found.chunks > 1:
            kernels.append(("kernel_finish", THREADS, [*first, *_join(dtype, self._elements)]))
        headers = [*HEADERS, found.header, *self.headers]
        # With tensor cores or groups: rather registers than blocks, else a few are put aside. Where
        # matrices are copied beside, with nothing behind, there are enough for two blocks.
        blocks = 1 if found.type or found.groups > 1 else LEAST_BLOCKS
        alone = part.kernel == PRODUCT and len(part.body) == 1
        blocks = STAGED_THREADS // found.threads if found.staged and alone else blocks
        text = source(headers, writer.params, kernels, blocks)
        params = writer.params.pack()
        layers = min(layers * found.chunks, MAX_GRID)
        grid = (found.rows, min(found.columns, MAX_GRID), layers)
        made = [Launch(text, "kernel", grid, (found.threads, 1, 1), params, part.name)]
        if found.chunks > 1:
            grid = (-(-self._elements // THREADS), 1, 1)
            made.append(Launch(text, "kernel_finish", grid, (THREADS, 1, 1), params, part.name))
        return made

    @property
    def _elements(self) -> int:
        return self.batches * (self.result_rows or self.m) * self.n

    def _sizes(self, writer: Writer, found: Plan) -> None:
        sizes = {
            "m": self.result_rows or self.m,
            "n": self.n,
            "k": self.k,
            "chunk": found.chunk,
            "chunks": found.chunks,
            "batches": self.batches,
            "layers": self.batches * self.turns,
            "count": self._elements,
        }
        for name, number in sizes.items():
            writer.params.add(name, number)

    def _layer(self) -> list[str]:
        """Which product, and where its chunk of k starts."""
        lines = ["const gp::i64 piece = z % p.chunks, k0 = piece * p.chunk;"]
        if self.turns == 1:
            return [*lines, "const gp::i64 batch = z / p.chunks;"]
        turn = "turn = z / p.chunks / p.batches"
        return [*lines, f"const gp::i64 batch = z / p.chunks % p.batches, {turn};"]

    def _store(self, writer: Writer, context: Context, dtype: str, found: Plan) -> list[str]:
        """A function that takes sums: finishes them, or keeps those of a chunk of k."""
        head = [
            f"auto store = [&](gp::i64 line, gp::i64 column, {dtype} sum) {{",
            f"  const gp::i64 row = {self.place};",
        ]
        if found.chunks == 1:
            return [*head, "  finish(batch, row, column, sum);", "};"]
        room = context.workspace.need(self._elements * found.chunks * 8)
        partials = f"gp::fixed<{dtype}>({writer.params.add('partials', room, 'gp::u64')})"
        at = "((piece * p.batches + batch) * p.m + row) * p.n + column"
        return [f"{dtype}* partials = {partials};", *head, f"  partials[{at}] = sum;", "};"]

    def _tiles(self, writer: Writer, found: Plan, call: str) -> list[str]:
        """Compute this block's tile of C; more, where a grid cannot number all columns'."""
        # Where products differ in k, some have no steps in this chunk.
        depth = self.depth if self.depth == "p.k" else f"({self.depth} < k0 ? k0 : {self.depth})"
        last = f"gp::least(k0 + p.chunk, {depth})"

        def tile(column: str) -> list[str]:
            return [
                f"{call}(",
                f"  a, b, {self.rows}, p.n, k0, {last}, blockIdx.x, {column}, store);",
                "__syncthreads();",  # before the next product takes the shared memory
            ]

        if found.columns <= MAX_GRID:
            return tile("blockIdx.y")
        columns = writer.params.add("columns", found.columns)
        walk = f"for (gp::i64 column = blockIdx.y; column < {columns}; column += gridDim.y) {{"
        return [walk, *[f"  {line}" for line in tile("column")], "}"]


def _join(dtype: str, elements: int) -> list[str]:
    """The second kernel of a split product: one thread an element of C."""
    kind = number_of(elements)
    sizes = ", ".join(f"{name} = static_cast<{kind}>(p.{name})" for name in "mn")
    return [
        "const gp::i64 i = gp::thread_number();",
        "if (i >= p.count) return;",
        f"const {dtype}* partials = gp::fixed<const {dtype}>(p.partials);",
        f"const {dtype} total = gp::finish_chunks<{dtype}>(partials + i, p.chunks, p.count);",
        f"const {kind} {sizes}, at = static_cast<{kind}>(i), line = at / n;",
        "finish(line / m, line % m, at % n, total);",
    ]
