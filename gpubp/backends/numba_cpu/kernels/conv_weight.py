"""The gradient of a convolution by its weights, in sums over a few images each.

Rows of a tile are elements of the weights, (tap, channel), its columns are filters, and k runs over
the positions of the windows, a line of results after the other. A chunk of images is one worker's:
it adds image after image to (taps, channels, filters).
"""

from __future__ import annotations

from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.conv_lines import Sums
from gpubp.backends.numba_cpu.kernels.images import clear, planes_of
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.strips import make_strip, make_strip_rows
from gpubp.backends.numba_cpu.target import lanes

CONV = words.CONV.at


def make_conv_weight(kind: Any, sums: Sums | None = None) -> Any:
    """The kernel of conv_weight for float32 or float64. `sums`: None, it is a product."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    size = low.ITEMSIZE[kind]
    panel = 2 * lanes(kind)
    strip, strip_rows = make_strip(kind), make_strip_rows()

    @native
    def prepare(code, params, scratch):
        """Distances: of lines from a block's first one, of elements from a window's start."""
        channels, taps = load_i64(code, CONV.channels), load_i64(code, CONV.taps)
        reach, rows = code + 8 * load_i64(code, CONV.reach), scratch
        rows += load_i64(code, CONV.scratch_rows)
        for t in range(taps):
            for c in range(channels):
                store_i64(rows, t * channels + c, load_i64(reach, t) + c * size)
        lines, i = rows + 8 * taps * channels, 0
        plane = load_i64(code, CONV.step0) * load_i64(code, CONV.wide_plane)
        line = load_i64(code, CONV.step1) * load_i64(code, CONV.wide_line)
        for p in range(load_i64(code, CONV.block)):
            for q in range(load_i64(code, CONV.out1)):
                store_i64(lines, i, p * plane + q * line)
                i += 1
        row = load_i64(code, words.MM_C + 2)
        store_i64(params, words.TILE_STARTS, lines)
        store_i64(params, words.TILE_K, load_i64(code, CONV.out2))
        store_i64(params, words.TILE_A_COL, load_i64(code, CONV.step2) * load_i64(code, CONV.pixel))
        store_i64(params, words.TILE_B_ROW, row)
        store_i64(params, words.TILE_C_ROW, row)
        return 0

    @native
    def begin_product(code, out, scratch):
        """The sums begin at 0."""
        elements = load_i64(code, CONV.taps) * load_i64(code, CONV.channels)
        clear(out, elements * load_i64(code, words.MM_C + 2))
        return 0

    @native
    def add_product(code, params, a, dy, out, scratch):
        """Add the positions of a block."""
        channels, filters = load_i64(code, CONV.channels), load_i64(code, CONV.filters)
        tiles, row = load_i64(code, words.MM_TILES), load_i64(code, words.MM_C + 2)
        rows = scratch + load_i64(code, CONV.scratch_rows)
        m = load_i64(code, CONV.taps) * channels
        for g in range(load_i64(code, CONV.groups)):
            top, offset = a + g * channels * size, g * filters * size
            i = 0
            while i < m:
                some = strip_rows(m - i)
                for q in range(some):
                    store_i64(params, words.TILE_A_ROWS + q, load_i64(rows, i + q))
                strip(
                    tiles, params, some, top, dy + offset, panel * size, out + i * row, filters,
                    offset,
                )  # fmt: skip
                i += some
        return 0

    @native
    def finish_product(code, out, scratch):
        """They are there."""
        return 0

    begin, add, finish = sums or (begin_product, add_product, finish_product)

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are chunks of images."""
        params = scratch
        x = load_i64(bases, load_i64(code, words.MM_A)) + load_i64(code, words.MM_A + 1)
        dy = load_i64(bases, load_i64(code, words.MM_B)) + load_i64(code, words.MM_B + 1)
        c = load_i64(bases, load_i64(code, words.MM_C)) + load_i64(code, words.MM_C + 1)
        row, chunk = load_i64(code, words.MM_C + 2), load_i64(code, CONV.chunk)
        nbytes = load_i64(code, CONV.taps) * load_i64(code, CONV.channels) * row
        plane = load_i64(code, CONV.out1) * load_i64(code, CONV.out2)
        positions, block = load_i64(code, CONV.positions), load_i64(code, CONV.block)
        prepare(code, params, scratch)
        order = load_i64(code, words.MM_A_ORDER)
        for i in range(row0, row1):
            out = c + i * nbytes
            begin(code, out, scratch)
            for n in range(i * chunk, min((i + 1) * chunk, load_i64(code, CONV.images))):
                number = n
                if order >= 0:
                    number = load_i64(load_i64(bases, order), n)
                image = x + number * load_i64(code, CONV.image)
                for position in range(0, positions, block):
                    count = min(block, positions - position)
                    a = planes_of(code, image, position, count, scratch)
                    store_i64(params, words.TILE_SEGMENTS, count * load_i64(code, CONV.out1))
                    first = (n * positions + position) * plane
                    add(code, params, a, dy + first * row, out, scratch)
            finish(code, out, scratch)
        return 0

    return kernel
