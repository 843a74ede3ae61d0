"""Convolutions that are no products: a line of results at a time, of channels that have a filter
each (see `depthwise`), or of one channel with few filters (see `pixels`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import depthwise, pixel_gradients, pixels
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.images import clear
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.target import lanes

CONV, PASS = words.CONV.at, words.PASS.at
CLIPS = words.EPILOGUES.index("bias_relu")


class Lines(NamedTuple):
    """Functions of `conv`: `pack(code, record, w, out)`, the weights of a pass in its order, and
    `line(code, params, record, scratch, m, a, c)`, m results of a line, all channels.
    """

    pack: Any
    line: Any


class Sums(NamedTuple):
    """Functions of `conv_weight`, for a chunk of images: `begin(code, out, scratch)`,
    `add(code, params, a, dy, out, scratch)` the lines of a block, `finish(code, out, scratch)`.
    """

    begin: Any
    add: Any
    finish: Any


@native
def _pack_nothing(code, record, w, out):
    return 0


@native
def _no_line(code, params, record, scratch, m, a, c):
    return 0


NO_LINES = Lines(_pack_nothing, _no_line)


def _make_pack(kind: Any, results: int, step: int) -> Any:
    """The weights of a pass as (taps, results). Words of the code: how many results there are, and
    elements from the weights of one to those of the next.
    """
    load_i64, load, store = low.load_i64, low.make_load(kind), low.make_store(kind)

    @native
    def pack(code, record, w, out):
        taps, order = load_i64(record, PASS.taps), code + 8 * load_i64(record, PASS.order)
        count, apart = load_i64(code, results), load_i64(code, step)
        for i in range(count):
            for t in range(taps):
                store(out, t * count + i, load(w, i * apart + load_i64(order, t)))
        return 0

    return pack


def lines_of_channels(kind: Any) -> Lines:
    """Each channel has a filter of its own."""
    load_i64, size = low.load_i64, low.ITEMSIZE[kind]
    results = depthwise.make_results(kind)

    @native
    def line(code, params, record, scratch, m, a, c):
        channels = load_i64(code, CONV.groups)
        results(
            c,
            load_i64(params, words.TILE_C_ROW),
            a,
            load_i64(code, CONV.step2) * load_i64(code, CONV.pixel),
            scratch + load_i64(record, PASS.weights),
            channels * size,
            load_i64(record, PASS.taps),
            code + 8 * load_i64(record, PASS.starts),
            m,
            channels,
        )
        return 0

    return Lines(_make_pack(kind, CONV.groups, CONV.w_group), line)


def lines_of_pixels(kind: Any) -> Lines:
    """One channel; windows begin at neighbouring pixels."""
    load_i64 = low.load_i64
    results = pixels.make_results(kind)

    @native
    def line(code, params, record, scratch, m, a, c):
        epilogue = load_i64(code, words.MM_EPILOGUE)
        bias = load_i64(params, words.TILE_BIAS) if epilogue != 0 else 0
        results(
            c,
            load_i64(params, words.TILE_C_ROW),
            a,
            scratch + load_i64(record, PASS.weights),
            load_i64(record, PASS.taps),
            code + 8 * load_i64(record, PASS.starts),
            m,
            load_i64(code, CONV.filters),
            bias,
            1 if epilogue == CLIPS else 0,
        )
        return 0

    return Lines(_make_pack(kind, CONV.filters, CONV.w_filter), line)


def sums_of_channels(kind: Any) -> Sums:
    """Each channel has a filter of its own."""
    load_i64 = low.load_i64
    gradients = depthwise.make_gradients(kind)

    @native
    def begin(code, out, scratch):
        clear(out, load_i64(code, CONV.taps) * load_i64(code, words.MM_C + 2))
        return 0

    @native
    def add(code, params, a, dy, out, scratch):
        channels, row = load_i64(code, CONV.groups), load_i64(code, words.MM_C + 2)
        starts, m = load_i64(params, words.TILE_STARTS), load_i64(code, CONV.out2)
        for i in range(load_i64(params, words.TILE_SEGMENTS)):
            gradients(
                out,
                row,
                a + load_i64(starts, i),
                load_i64(params, words.TILE_A_COL),
                dy + i * m * row,
                row,
                load_i64(code, CONV.taps),
                code + 8 * load_i64(code, CONV.reach),
                m,
                channels,
            )
        return 0

    @native
    def finish(code, out, scratch):
        return 0

    return Sums(begin, add, finish)


def sums_of_pixels(kind: Any) -> Sums:
    """One channel; windows begin at neighbouring pixels."""
    load_i64 = low.load_i64
    vector = lanes(kind) * low.ITEMSIZE[kind]
    turn, total = pixel_gradients.make_turn(kind), pixel_gradients.make_total(kind)
    add_products = pixel_gradients.make_products(kind)

    @native
    def begin(code, out, scratch):
        sums = load_i64(code, CONV.taps) * load_i64(code, CONV.filters)
        clear(scratch + load_i64(code, CONV.scratch_sums), sums * vector)
        return 0

    @native
    def add(code, params, a, dy, out, scratch):
        lines, m = load_i64(params, words.TILE_SEGMENTS), load_i64(code, CONV.out2)
        filters, row = load_i64(code, CONV.filters), load_i64(code, words.MM_C + 2)
        turned = scratch + load_i64(code, CONV.scratch_turned)
        line = (m * load_i64(code, CONV.pixel) + vector - 1) // vector * vector
        plane = lines * line
        for i in range(lines):
            turn(dy + i * m * row, m, filters, turned + i * line, line, plane)
        add_products(
            scratch + load_i64(code, CONV.scratch_sums),
            a,
            code + 8 * load_i64(code, CONV.reach),
            load_i64(code, CONV.taps),
            load_i64(params, words.TILE_STARTS),
            lines,
            m,
            turned,
            plane,
            filters,
        )
        return 0

    @native
    def finish(code, out, scratch):
        sums = load_i64(code, CONV.taps) * load_i64(code, CONV.filters)
        total(scratch + load_i64(code, CONV.scratch_sums), out, sums)
        return 0

    return Sums(begin, add, finish)
