"""Register tiles whose k falls into segments: rows of A are windows of an image.

As in `microkernel`, but A is read in segments of TILE_K elements each, which begin TILE_SEGMENTS
times at other distances (the lines of a window); B goes on from one to the next. So patches need no
matrix of their own. `add` is for weight gradients: the tile is added to what C holds.
"""

from __future__ import annotations

from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels.epilogues import EMITTERS, FETCHED
from gpubp.backends.numba_cpu.kernels.microkernel import table_of
from gpubp.backends.numba_cpu.kernels.tile import Spot, Tile
from gpubp.backends.numba_cpu.kernels.tilevectors import I64
from gpubp.backends.numba_cpu.target import tile_rows

ADD = "add"
_UNROLL = 4


def window_tiles_module(epilogue: str, dtype: str, symbol: str) -> Any:
    """An LLVM module with all tiles of one epilogue and dtype, and their table as `symbol`."""
    adds = epilogue == ADD
    follow = (_add if adds else EMITTERS[epilogue], *FETCHED.get(epilogue, (0, False)))
    tile = _OfCotangents if adds else _OfWeights
    return table_of(tile, follow, f"of windows {epilogue} {dtype}", dtype, symbol)


class _WindowTile(Tile):
    def product(self) -> list[Any]:
        """The sums over all segments, row by row."""
        builder = self.builder
        length, segments = self.word(words.TILE_K), self.word(words.TILE_SEGMENTS)
        starts = self.word(words.TILE_STARTS)
        self.prepare_product()
        before = [I64(0), self.b, *[self.constant(0.0)] * (self.rows * self.vectors)]
        entry = builder.block
        loop = self.function.append_basic_block("segment")
        done = self.function.append_basic_block("segments.done")
        builder.cbranch(builder.icmp_signed(">", segments, I64(0)), loop, done)
        builder.position_at_end(loop)
        number = builder.phi(I64)
        held = [builder.phi(x.type) for x in before[1:]]
        pointer = builder.inttoptr(starts, I64.as_pointer())
        state = [builder.load(builder.gep(pointer, [number])), *held]
        if self.rows == tile_rows():
            state = self.loop(builder.sdiv(length, I64(_UNROLL)), _UNROLL, state)
            state = self.loop(builder.srem(length, I64(_UNROLL)), 1, state)
        else:
            state = self.loop(length, 1, state)
        after = builder.add(number, I64(1))
        for phi, start, new in zip([number, *held], before, [after, *state[1:]]):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, builder.block)
        last = builder.block
        builder.cbranch(builder.icmp_signed("<", after, segments), loop, done)
        builder.position_at_end(done)
        sums = [builder.phi(x.type) for x in before[2:]]
        for phi, start, new in zip(sums, before[2:], state[2:]):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, last)
        return sums


class _OfWeights(_WindowTile):
    def load_b(self, address: Any, vector: int) -> Any:
        """Panels of weights are whole, and filled up with zeros."""
        return self.load(address, -1)


class _OfCotangents(_WindowTile):
    """B is read where it is."""


def _add(tile: Tile, spots: list[Spot]) -> None:
    """C + what C holds."""
    for spot in spots:
        old = tile.load(spot.address, spot.vector)
        total = tile.builder.fadd(old, spot.value)
        tile.store(total, spot.address, spot.vector)
