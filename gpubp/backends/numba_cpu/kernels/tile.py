"""The register tile of a matrix product: rows of A times vectors of B, accumulated over all of K.

Written as LLVM vectors: `rows` broadcasts of A times `vectors` vectors of B, accumulators in phi
nodes, fused multiply-add where the CPU has it. What is done with the sums before they leave the
registers is emitted by a function of `epilogues`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels.tilevectors import I8, I32, I64, TileVectors
from gpubp.backends.numba_cpu.target import tile_rows

_UNROLL = 4  # steps over k in one turn of the loop, for whole tiles


@dataclass(eq=False)
class Spot:
    """One vector of the tile: the product's value, and where it goes."""

    value: Any
    address: Any
    vector: int


class Tile(TileVectors):
    """Emits one tile function.

    Kinds: two whole vectors; two vectors, the second one partly there; one vector, partly there;
    one of half the lanes, partly there.
    """

    def __init__(self, function: Any, dtype: str, rows: int, kind: int) -> None:
        super().__init__(function, dtype, kind)
        self.rows = rows
        self.a, self.b, self.c, self.offset = function.args[1:]

    def emit(self, finish: Emitter, others: int, written: bool) -> None:
        """The whole function.

        Args:
            finish: emits what follows the product, and the stores.
            others: how many arrays laid out as the product `finish` reads.
            written: whether it writes them, too.
        """
        builder = self.builder
        self.c_row = self.word(words.TILE_C_ROW)
        addresses = [
            [
                builder.add(
                    self.row_address(self.c, self.c_row, i), I64(j * self.width * self.item)
                )
                for j in range(self.vectors)
            ]
            for i in range(self.rows)
        ]
        self._prefetch([row[0] for row in addresses], others, written)
        sums = self.product()
        spots = [
            Spot(sums[i * self.vectors + j], addresses[i][j], j)
            for i in range(self.rows)
            for j in range(self.vectors)
        ]
        finish(self, spots)
        builder.ret_void()

    def row_address(self, base: Any, stride: Any, i: int) -> Any:
        """base + i * stride."""
        return base if i == 0 else self.builder.add(base, self.builder.mul(stride, I64(i)))

    def _prefetch(self, rows: list[Any], others: int, written: bool) -> None:
        """Ask for what the epilogue will write and read while the product runs: its own place,
        which another worker may have read, and `others` beside it.
        """
        pointer = I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        function = self.declare("llvm.prefetch.p0", kind)
        distances = [self.word(words.TILE_STATE + s) for s in range(others)]
        for row in rows:
            starts = [self.builder.add(row, d) for d in distances]
            for at in [row, *starts]:
                where = self.builder.inttoptr(at, pointer)
                write = I32(int(written or at is row))
                self.builder.call(function, [where, write, I32(3), I32(1)])

    def prepare_product(self) -> None:
        """Read what the loops over k need."""
        self.a_col, self.b_row = (self.word(w) for w in (words.TILE_A_COL, words.TILE_B_ROW))
        self.a_rows = [
            self.builder.add(self.a, self.word(words.TILE_A_ROWS + i)) for i in range(self.rows)
        ]

    def product(self) -> list[Any]:
        """The sums over k, row by row."""
        builder = self.builder
        k = self.word(words.TILE_K)
        self.prepare_product()
        state = [I64(0), self.b, *[self.constant(0.0)] * (self.rows * self.vectors)]
        unroll = _UNROLL if self.rows == tile_rows() and self.partial is None else 1
        if unroll > 1:
            state = self.loop(builder.sdiv(k, I64(unroll)), unroll, state)
            k = builder.srem(k, I64(unroll))
        return self.loop(k, 1, state)[2:]

    def loop(self, count: Any, steps: int, state: list[Any]) -> list[Any]:
        """`count` times `steps` steps over k; state: the place in rows of A, where B is
        read, and the sums.
        """
        builder = self.builder
        entry = builder.block
        loop = self.function.append_basic_block("k.loop")
        done = self.function.append_basic_block("k.done")
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), loop, done)
        builder.position_at_end(loop)
        left = builder.phi(I64)
        before = [builder.phi(x.type) for x in state]
        after = list(before)
        for _ in range(steps):
            after = self._multiply_add(after)
        fewer = builder.sub(left, I64(1))
        for phi, start, new in zip([left, *before], [count, *state], [fewer, *after]):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, loop)
        builder.cbranch(builder.icmp_signed("!=", fewer, I64(0)), loop, done)
        builder.position_at_end(done)
        final = [builder.phi(x.type) for x in state]
        for phi, start, new in zip(final, state, after):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, loop)
        return final

    def _multiply_add(self, state: list[Any]) -> list[Any]:
        builder = self.builder
        at_a, at_b, *sums = state
        step = self.width * self.item
        panel = [self.load_b(builder.add(at_b, I64(j * step)), j) for j in range(self.vectors)]
        fresh = []
        for i in range(self.rows):
            address = builder.add(self.a_rows[i], at_a)
            pointer = builder.inttoptr(address, self.scalar.as_pointer())
            spread = self.splat(builder.load(pointer, align=self.item))
            for j in range(self.vectors):
                fresh.append(self.fma(spread, panel[j], sums[i * self.vectors + j]))
        return [self.opaque(builder.add(at_a, self.a_col)), builder.add(at_b, self.b_row), *fresh]

    def load_b(self, address: Any, vector: int) -> Any:
        """A vector of B."""
        return self.load(address, vector)

    def opaque(self, value: Any) -> Any:
        """The same number, of which LLVM knows nothing: else it adds it to each row's address ahead
        of the loop, once for each step, and reads those back from the stack.
        """
        kind = ir.FunctionType(I64, [I64])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def by_rows(self, body: Callable[[Any, int], None]) -> None:
        """A loop over the tile's rows; `body` emits what is done with each vector of a row."""
        builder = self.builder
        entry = builder.block
        loop = self.function.append_basic_block("row.loop")
        done = self.function.append_basic_block("row.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        row, left = builder.phi(I64), builder.phi(I64)
        for j in range(self.vectors):
            body(builder.add(row, I64(j * self.width * self.item)), j)
        fewer = builder.sub(left, I64(1))
        for phi, start, new in (
            (row, self.c, builder.add(row, self.c_row)),
            (left, I64(self.rows), fewer),
        ):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, builder.block)
        builder.cbranch(builder.icmp_signed("!=", fewer, I64(0)), loop, done)
        builder.position_at_end(done)

    def column_vectors(self) -> list[Any]:
        """The row vector at TILE_BIAS, this tile's columns."""
        start = self.builder.add(self.word(words.TILE_BIAS), self.offset)
        step = self.width * self.item
        return [self.load(self.builder.add(start, I64(j * step)), j) for j in range(self.vectors)]


Emitter = Callable[[Tile, list[Spot]], None]
