"""Convolution, and its transpose: register tiles over windows of images.

A worker computes whole images. B, the weights, is copied into panels once a call; the images are
read in place, or, where there are zeros around them, copied in blocks of planes to this worker's
scratch, which stay in the second-level cache. Results that meet the same taps make a pass: one for
a convolution, stride many along each axis for its transpose. Where each channel has a filter of its
own, or one channel has few filters, there is no product: a line of results is done by `lines`.
"""

from __future__ import annotations

from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.conv_lines import NO_LINES, Lines
from gpubp.backends.numba_cpu.kernels.images import clear, planes_of
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.strips import make_follow, make_strip, make_strip_rows
from gpubp.backends.numba_cpu.target import lanes

CONV, PASS, PASS_WORDS = words.CONV.at, words.PASS.at, len(words.PASS)
START0, START1, START2 = PASS.start0, PASS.start1, PASS.start2
COUNT0, COUNT1, COUNT2 = PASS.count0, PASS.count1, PASS.count2


def make_conv(kind: Any, lines: Lines | None = None) -> Any:
    """The kernel of conv and conv_input for float32 or float64. `lines`: None, it is a product."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    panel = 2 * lanes(kind)
    strip, strip_rows, follow = make_strip(kind), make_strip_rows(), make_follow(kind)
    by_lines, (pack_lines, line) = lines is not None, lines or NO_LINES

    @native
    def pack(code, record, w, out):
        """The weights of one group as panels (taps * channels, 2 vectors), in a pass's order."""
        taps, order = load_i64(record, PASS.taps), code + 8 * load_i64(record, PASS.order)
        channels, filters = load_i64(code, CONV.channels), load_i64(code, CONV.filters)
        wf, wc = load_i64(code, CONV.w_filter), load_i64(code, CONV.w_channel)
        if filters % panel != 0:
            nbytes = taps * channels * panel * size  # of a panel; the last one is not whole
            clear(out + filters // panel * nbytes, nbytes)
        for j in range(filters):
            to = out + ((j // panel) * taps * channels * panel + j % panel) * size
            for c in range(channels):
                source = w + (j * wf + c * wc) * size
                for t in range(taps):
                    store(to, (t * channels + c) * panel, load(source, load_i64(order, t)))
        return 0

    @native
    def group_bytes(code, record):
        """Of the panels of one group."""
        filters = (load_i64(code, CONV.filters) + panel - 1) // panel * panel
        return load_i64(record, PASS.taps) * load_i64(code, CONV.channels) * filters * size

    @native
    def prepare_pass(code, record, w, scratch):
        """Panels of all groups, and how far windows are from the first one of a block."""
        at = scratch + load_i64(record, PASS.weights)
        if by_lines:
            return pack_lines(code, record, w, at)
        for g in range(load_i64(code, CONV.groups)):
            pack(code, record, w + g * load_i64(code, CONV.w_group) * size, at)
            at += group_bytes(code, record)
        rows, i = scratch + load_i64(record, PASS.rows), 0
        whole = load_i64(record, PASS.by_lines) == 0
        block = min(load_i64(code, CONV.block), load_i64(record, COUNT0))
        plane = load_i64(code, CONV.step0) * load_i64(code, CONV.wide_plane)
        line = load_i64(code, CONV.step1) * load_i64(code, CONV.wide_line)
        pixel = load_i64(code, CONV.step2) * load_i64(code, CONV.pixel)
        for p in range(block if whole else 1):
            for q in range(load_i64(record, COUNT1) if whole else 1):
                for r in range(load_i64(record, COUNT2)):
                    store_i64(rows, i, p * plane + q * line + r * pixel)
                    i += 1
        return 0

    @native
    def strips(code, params, record, rows, m, a, b, c, n, offset):
        """m rows of C, whose windows are `rows` from a. `offset`: bytes of columns before."""
        tiles = load_i64(code, words.MM_TILES)
        b_panel = load_i64(record, PASS.taps) * load_i64(code, CONV.channels) * panel * size
        cr = load_i64(params, words.TILE_C_ROW)
        i = 0
        while i < m:
            some = strip_rows(m - i)
            for q in range(some):
                store_i64(params, words.TILE_A_ROWS + q, load_i64(rows, i + q))
            strip(tiles, params, some, a, b, b_panel, c + i * cr, n, offset)
            i += some
        return 0

    @native
    def groups(code, params, record, scratch, m, a, c):
        """m rows of C, all columns."""
        if by_lines:
            return line(code, params, record, scratch, m, a, c)
        filters, channels = load_i64(code, CONV.filters), load_i64(code, CONV.channels)
        rows = scratch + load_i64(record, PASS.rows)
        b = scratch + load_i64(record, PASS.weights)
        for g in range(load_i64(code, CONV.groups)):
            first = a + g * channels * size
            strips(code, params, record, rows, m, first, b, c, filters, g * filters * size)
            b += group_bytes(code, record)
        return 0

    @native
    def one_pass(code, params, record, scratch, a, c, position, count):
        """The results of a pass at `count` outer positions. `c`: where the image's results are."""
        row = load_i64(code, words.MM_C + 2)
        out1, out2 = load_i64(code, CONV.out1), load_i64(code, CONV.out2)
        some = min(count, load_i64(record, COUNT0) - position)
        lines, m = load_i64(record, COUNT1), load_i64(record, COUNT2)
        store_i64(params, words.TILE_K, load_i64(record, PASS.length))
        store_i64(params, words.TILE_SEGMENTS, load_i64(record, PASS.segments))
        store_i64(params, words.TILE_STARTS, code + 8 * load_i64(record, PASS.starts))
        if some <= 0:
            return 0
        if load_i64(record, PASS.by_lines) == 0:
            store_i64(params, words.TILE_C_ROW, row)
            groups(
                code, params, record, scratch, some * lines * m, a, c + position * out1 * out2 * row
            )
            return 0
        grow0, grow1 = load_i64(code, CONV.grow0), load_i64(code, CONV.grow1)
        store_i64(params, words.TILE_C_ROW, row * load_i64(code, CONV.grow2))
        plane = load_i64(code, CONV.step0) * load_i64(code, CONV.wide_plane)
        line = load_i64(code, CONV.step1) * load_i64(code, CONV.wide_line)
        for p in range(some):
            for q in range(lines):
                i0 = (position + p) * grow0 + load_i64(record, START0)
                i1 = q * grow1 + load_i64(record, START1)
                at = (i0 * out1 + i1) * out2 + load_i64(record, START2)
                groups(code, params, record, scratch, m, a + p * plane + q * line, c + at * row)
        return 0

    @native
    def chain(code, bases, first, stop, c, scratch):
        """What follows, over the elements of rows [first, stop); `c`: where row 0 would be."""
        at, n = load_i64(code, words.MM_CHAIN), load_i64(code, words.MM_N)
        if at == 0:
            return 0
        low.call_kernel(
            load_i64(code, words.MM_CHAIN_KERNEL),
            code + 8 * at,
            bases,
            first * n,
            stop * n,
            c,
            scratch + load_i64(code, words.MM_SCRATCH_CHAIN),
        )
        return 0

    @native
    def image(code, bases, params, n, x, c, scratch):
        """One image, a block of outer positions after the other. `c`: where row 0 of C is."""
        plane = load_i64(code, CONV.out1) * load_i64(code, CONV.out2)
        row, out0 = load_i64(code, words.MM_C + 2), load_i64(code, CONV.out0)
        positions, block = load_i64(code, CONV.positions), load_i64(code, CONV.block)
        grow0, passes = load_i64(code, CONV.grow0), load_i64(code, CONV.passes)
        in_scratch = load_i64(code, words.MM_C_SCRATCH) == 1
        for position in range(0, positions, block):
            count = min(block, positions - position)
            a = planes_of(code, x, position, count, scratch)
            first = (n * out0 + position * grow0) * plane
            stop = (n * out0 + min((position + count) * grow0, out0)) * plane
            start = c
            if in_scratch:
                start = scratch + load_i64(code, words.MM_SCRATCH_C) - first * row
            for i in range(passes):
                record = code + 8 * (load_i64(code, CONV.first_pass) + i * PASS_WORDS)
                at = start + n * out0 * plane * row
                one_pass(code, params, record, scratch, a, at, position, count)
            chain(code, bases, first, stop, start, scratch)
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are images."""
        params = scratch
        x = load_i64(bases, load_i64(code, words.MM_A)) + load_i64(code, words.MM_A + 1)
        w = load_i64(bases, load_i64(code, words.MM_B)) + load_i64(code, words.MM_B + 1)
        c = load_i64(bases, load_i64(code, words.MM_C)) + load_i64(code, words.MM_C + 1)
        if row0 >= row1:
            return 0
        for i in range(load_i64(code, CONV.passes)):
            record = code + 8 * (load_i64(code, CONV.first_pass) + i * PASS_WORDS)
            prepare_pass(code, record, w, scratch)
        store_i64(params, words.TILE_A_COL, size)
        store_i64(params, words.TILE_B_ROW, panel * size)
        follow(code, bases, c, params)
        order = load_i64(code, words.MM_A_ORDER)
        for n in range(row0, row1):
            number = n
            if order >= 0:
                number = load_i64(load_i64(bases, order), n)
            image(code, bases, params, n, x + number * load_i64(code, CONV.image), c, scratch)
        return 0

    return kernel
