"""What matrix products and convolutions share: strips of register tiles, and what follows them."""

from __future__ import annotations

from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR
from gpubp.backends.numba_cpu.target import has_half_tiles, lanes, tile_kinds, tile_rows


def make_strip(kind: Any) -> Any:
    """`strip(tiles, params, rows, a, b, b_panel, c, n, offset)`."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    size, width, kinds = low.ITEMSIZE[kind], lanes(kind), tile_kinds()
    panel, half = 2 * width, width // 2 if has_half_tiles() else 0

    @native
    def strip(tiles, params, rows, a, b, b_panel, c, n, offset):
        """`rows` rows of C: n columns, a panel of B after the other. `offset`: bytes of C's columns
        before these.
        """
        tile = tiles + 8 * kinds * (rows - 1)
        whole = load_i64(tile, words.TILE_WHOLE)
        j = 0
        while n - j >= panel:
            at = offset + j * size
            low.call_tile(whole, params, a, b, c + at, at)
            j += panel
            b += b_panel
        if j < n:
            at = offset + j * size
            one = n - j <= width
            store_i64(params, words.TILE_COLUMNS, n - j if one else n - j - width)
            edge = words.TILE_ONE if one else words.TILE_TWO
            if n - j <= half:
                edge = words.TILE_HALF
            low.call_tile(load_i64(tile, edge), params, a, b, c + at, at)
        return 0

    return strip


def make_strip_rows() -> Any:
    """`strip_rows(left)`."""
    most = tile_rows()

    @native(inline=True)
    def strip_rows(left):
        """Rows of the next strip: the last two share what is left evenly."""
        return (left + 1) // 2 if most < left < 2 * most else min(left, most)

    return strip_rows


def make_follow(kind: Any) -> Any:
    """`follow(code, bases, c, params)`."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    C = CONSTRUCTOR[kind]

    @native
    def number(code, bases, i):
        """Scalar i of the epilogue."""
        at = words.MM_NUMBERS + 3 * i
        buffer = load_i64(code, at)
        if buffer < 0:
            return C(low.bits_to_f64(load_i64(code, at + 2)))
        return load(load_i64(bases, buffer) + load_i64(code, at + 1), 0)

    @native
    def follow(code, bases, c, params):
        """Fill in what the epilogue of the tiles reads. `c`: where C begins."""
        if load_i64(code, words.MM_EPILOGUE) == 0:
            return 0
        buffer = load_i64(code, words.MM_BIAS)
        if buffer >= 0:
            at = load_i64(bases, buffer) + load_i64(code, words.MM_BIAS + 1)
            store_i64(params, words.TILE_BIAS, at)
        for s in range(2):
            buffer = load_i64(code, words.MM_STATE + 2 * s)
            if buffer >= 0:
                at = load_i64(bases, buffer) + load_i64(code, words.MM_STATE + 2 * s + 1)
                store_i64(params, words.TILE_STATE + s, at - c)
        for i in range(words.TILE_MAX_NUMBERS):
            store(params + 8 * (words.TILE_NUMBERS + i), 0, number(code, bases, i))
        return 0

    return follow
