"""The transpose of a convolution, spread: each cotangent is multiplied with all taps and added to
the elements that its window read.

For images so small that gathering would multiply mostly by the zeros around them. A tile's rows are
results along the outer axis, at one place of the others, so that no two of them add to the same
elements; its columns are the taps and channels of one line of the window.
"""

from __future__ import annotations

from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.images import clear
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.move import copy_bytes
from gpubp.backends.numba_cpu.kernels.strips import make_strip, make_strip_rows
from gpubp.backends.numba_cpu.target import lanes

CONV, SPREAD = words.CONV.at, words.SPREAD.at
SPREAD_WORDS = len(words.SPREAD)


def make_conv_spread(kind: Any) -> Any:
    """The kernel of conv_input for float32 or float64, spread."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    panel = 2 * lanes(kind)
    strip, strip_rows = make_strip(kind), make_strip_rows()

    @native
    def pack(code, record, w, out):
        """The weights of a line of taps as panels (filters, 2 vectors)."""
        filters, channels = load_i64(code, CONV.filters), load_i64(code, CONV.channels)
        wf, wc, taps = (
            load_i64(code, CONV.w_filter),
            load_i64(code, CONV.w_channel),
            load_i64(code, CONV.taps),
        )
        for t in range(taps):
            for c in range(channels):
                j = t * channels + c
                to = out + ((j // panel) * filters * panel + j % panel) * size
                source = w + (load_i64(record, SPREAD.first) + t + c * wc) * size
                for o in range(filters):
                    store(to, o * panel, load(source, o * wf))
        return 0

    @native
    def line(code, record, scratch, dy, out):
        """Add what all results give to one line of taps."""
        n = load_i64(code, CONV.taps) * load_i64(code, CONV.channels)
        b = scratch + load_i64(record, SPREAD.weights)
        b_panel = load_i64(code, CONV.filters) * panel * size
        tiles, m = load_i64(code, words.MM_TILES), load_i64(code, CONV.in0)
        step1 = load_i64(code, CONV.step1) * load_i64(code, CONV.wide_line)
        step2 = load_i64(code, CONV.step2) * load_i64(code, CONV.pixel)
        cr = load_i64(scratch, words.TILE_C_ROW)
        at = out + load_i64(record, SPREAD.reach)
        for p1 in range(load_i64(code, CONV.in1)):
            for p2 in range(load_i64(code, CONV.in2)):
                a = dy + p1 * load_i64(code, CONV.line) + p2 * load_i64(code, CONV.row)
                c = at + p1 * step1 + p2 * step2
                i = 0
                while i < m:
                    some = strip_rows(m - i)
                    top = a + i * load_i64(code, CONV.plane)
                    strip(tiles, scratch, some, top, b, b_panel, c + i * cr, n, 0)
                    i += some
        return 0

    @native
    def cut(code, wide, out):
        """Leave the zeros around an image out."""
        pixel = load_i64(code, CONV.pixel)
        lo2, n2 = load_i64(code, CONV.before2), load_i64(code, CONV.out2)
        used = min(n2 * pixel, load_i64(code, CONV.wide_line) - lo2 * pixel)
        wide0, wide1 = load_i64(code, CONV.wide0), load_i64(code, CONV.wide1)
        for i0 in range(load_i64(code, CONV.out0)):
            for i1 in range(load_i64(code, CONV.out1)):
                w0, w1 = i0 + load_i64(code, CONV.before0), i1 + load_i64(code, CONV.before1)
                to = out + (i0 * load_i64(code, CONV.out1) + i1) * n2 * pixel
                if w0 >= wide0 or w1 >= wide1:
                    clear(to, n2 * pixel)
                else:
                    source = wide + w0 * load_i64(code, CONV.wide_plane)
                    source += w1 * load_i64(code, CONV.wide_line) + lo2 * pixel
                    copy_bytes(source, to, used)
                    clear(to + used, n2 * pixel - used)
        return 0

    @native
    def prepare(code, w, scratch):
        """Pack the weights of all lines of taps, and say what strips share."""
        records, first = load_i64(code, CONV.passes), code + 8 * load_i64(code, CONV.first_pass)
        for i in range(records):
            record = first + 8 * i * SPREAD_WORDS
            pack(code, record, w, scratch + load_i64(record, SPREAD.weights))
        store_i64(scratch, words.TILE_K, load_i64(code, CONV.filters))
        store_i64(scratch, words.TILE_SEGMENTS, 1)
        store_i64(scratch, words.TILE_STARTS, code + 8 * load_i64(code, CONV.reach))
        store_i64(scratch, words.TILE_A_COL, size)
        store_i64(scratch, words.TILE_B_ROW, panel * size)
        store_i64(
            scratch, words.TILE_C_ROW, load_i64(code, CONV.step0) * load_i64(code, CONV.wide_plane)
        )
        for q in range(words.TILE_STRIP):
            store_i64(scratch, words.TILE_A_ROWS + q, q * load_i64(code, CONV.plane))
        return 0

    @native
    def spread(code, scratch, dy, result, nbytes):
        """One image, without what follows."""
        out = result
        if load_i64(code, CONV.copied) == 1:
            out = scratch + load_i64(code, CONV.scratch_wide)
            clear(out, load_i64(code, CONV.wide0) * load_i64(code, CONV.wide_plane))
        else:
            clear(out, nbytes)
        first = code + 8 * load_i64(code, CONV.first_pass)
        for i in range(load_i64(code, CONV.passes)):
            line(code, first + 8 * i * SPREAD_WORDS, scratch, dy, out)
        if load_i64(code, CONV.copied) == 1:
            cut(code, out, result)
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are images."""
        dy = load_i64(bases, load_i64(code, words.MM_A)) + load_i64(code, words.MM_A + 1)
        w = load_i64(bases, load_i64(code, words.MM_B)) + load_i64(code, words.MM_B + 1)
        c = load_i64(bases, load_i64(code, words.MM_C)) + load_i64(code, words.MM_C + 1)
        if row0 >= row1:
            return 0
        prepare(code, w, scratch)
        pixels = load_i64(code, CONV.out0) * load_i64(code, CONV.out1) * load_i64(code, CONV.out2)
        numbers = pixels * load_i64(code, words.MM_N)
        nbytes = numbers * size
        in_scratch = load_i64(code, words.MM_C_SCRATCH) == 1
        chain = load_i64(code, words.MM_CHAIN)
        for n in range(row0, row1):
            result = c + n * nbytes
            if in_scratch:
                result = scratch + load_i64(code, words.MM_SCRATCH_C)
            spread(code, scratch, dy + n * load_i64(code, CONV.image), result, nbytes)
            if chain != 0:
                low.call_kernel(
                    load_i64(code, words.MM_CHAIN_KERNEL),
                    code + 8 * chain,
                    bases,
                    n * numbers,
                    (n + 1) * numbers,
                    result - n * nbytes,
                    scratch + load_i64(code, words.MM_SCRATCH_CHAIN),
                )
        return 0

    return kernel
