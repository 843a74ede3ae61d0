"""Attention: blocks of scores by register tiles, online softmax, and weights times values.

A worker computes whole sequences, head by head. Keys are turned, a block at a time, into panels
that stay in cache; a strip of queries meets the block in scratch, and nothing of the size of all
scores is stored. q, k, v and masks are read where they are, the result is summed up in place. A
causal strip ends at its last query: blocks beyond the diagonal are never made. The formulas are in
`gpubp.ops.attention_specs`; the softmax goes on from block to block as in Milakov & Gimelshein,
"Online normalizer calculation for softmax" (2018, arXiv:1805.02867).
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.attention_rows import make_rows
from gpubp.backends.numba_cpu.kernels.fastmath import fast_functions
from gpubp.backends.numba_cpu.kernels.images import clear
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR
from gpubp.backends.numba_cpu.kernels.strips import make_strip, make_strip_rows
from gpubp.backends.numba_cpu.kernels.transpose import make_transpose
from gpubp.backends.numba_cpu.target import lanes, tile_rows

ATT = words.ATTENTION.at
PARAMS = 8 * words.TILE_PARAMS  # bytes of a product's


def make_blocks(kind: Any) -> SimpleNamespace:
    """What attention and its gradients share."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    size, width, most = low.ITEMSIZE[kind], lanes(kind), tile_rows()
    panel, transpose, C = 2 * width, make_transpose(kind), CONSTRUCTOR[kind]

    @native
    def product(params, zero, k, a_row, a_col, b_row, c_row):
        """Fill in what tiles read. `zero`: the address of a word that is 0."""
        store_i64(params, words.TILE_K, k)
        store_i64(params, words.TILE_A_COL, a_col)
        store_i64(params, words.TILE_B_ROW, b_row)
        store_i64(params, words.TILE_C_ROW, c_row)
        store_i64(params, words.TILE_SEGMENTS, 1)
        store_i64(params, words.TILE_STARTS, zero)
        for i in range(most):
            store_i64(params, words.TILE_A_ROWS + i, i * a_row)
        return 0

    @native
    def turn(x, row, n, features, out):
        """n rows as panels (features, 2 vectors)."""
        for first in range(0, n, width):
            some = min(width, n - first)
            at = out + (first // panel * features * panel + first % panel) * size
            source, done = x + first * row, 0
            if some == width:
                done = features - features % width
                for e in range(0, done, width):
                    transpose(source + e * size, row, at + e * panel * size, panel * size)
            for e in range(done, features):
                for c in range(some):
                    store(at, e * panel + c, load(source + c * row, e))
        return 0

    @native
    def masked(code, x, count, mask, scale):
        """Scores of a row, with the mask: scaled, and -inf where hidden."""
        step = load_i64(code, ATT.mask_column)
        if load_i64(code, ATT.mask_kind) == 1:
            for j in range(count):
                seen = low.load_u8(mask + j * step, 0) != 0
                store(x, j, load(x, j) * scale if seen else C(-math.inf))
        else:
            for j in range(count):
                store(x, j, load(x, j) * scale + load(mask + j * step, 0))
        return 0

    @native(inline=True)
    def place(code, bases, at, n, head):
        """Where a sequence and head of an operand begin. `at`: its first word."""
        address = load_i64(bases, load_i64(code, at)) + load_i64(code, at + 1)
        return address + n * load_i64(code, at + 2) + head * load_i64(code, at + 4)

    @native(inline=True)
    def number(code):
        """The scale."""
        return C(low.bits_to_f64(load_i64(code, ATT.scale)))

    return SimpleNamespace(
        product=product, turn=turn, masked=masked, place=place, number=number, panel=panel
    )


def make_attention(kind: Any) -> Any:
    """The kernel of attention and its sums for float32 or float64."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    strip_load, strip_store = low.make_strip_access(kind)
    size, C, rows_of = low.ITEMSIZE[kind], CONSTRUCTOR[kind], make_rows(kind)
    blocks, strip, strip_rows = make_blocks(kind), make_strip(kind), make_strip_rows()
    turn, place, number, masked = blocks.turn, blocks.place, blocks.number, blocks.masked
    product, panel = blocks.product, blocks.panel
    scale_row, exponentials = rows_of.scale_row, rows_of.exponentials
    exp = fast_functions(kind).exp_below

    @native
    def scaled(x, n, factor):
        for j in range(n):
            strip_store(x, j, strip_load(x, j) * factor)
        return 0

    @native
    def soften(code, x, count, stop, mask, out, top, total):
        """Weights of a row but for their sum, which goes on at `total`; `out` so far keeps up."""
        scale = number(code)
        if load_i64(code, ATT.mask_kind) > 0:
            masked(code, x, count, mask, scale)
            scale = C(1)
        before = load(top, 0)
        largest = scale_row(x, count, stop, scale)
        largest = before if before > largest else largest
        store(top, 0, largest)
        shift = largest if largest > C(-math.inf) else C(0)
        summed = np.float64(exponentials(x, stop, shift))
        if before < largest and before > C(-math.inf):
            factor = exp(before - shift)
            low.store_f64(total, 0, low.load_f64(total, 0) * np.float64(factor))
            if load_i64(code, ATT.what) & 1 != 0:
                scaled(out, load_i64(code, ATT.value_size), factor)
        low.store_f64(total, 0, low.load_f64(total, 0) + summed)
        return 0

    @native
    def finish(code, out, sums, scratch):
        """Divide by the sums, and store their logarithms."""
        tops = scratch + load_i64(code, ATT.scratch_tops)
        totals = scratch + load_i64(code, ATT.scratch_totals)
        what, step = load_i64(code, ATT.what), load_i64(code, ATT.sums + 3)
        for i in range(load_i64(code, ATT.length)):
            total = low.load_f64(totals, i)
            if what & 1 != 0:
                factor = C(0) if total == 0.0 else C(1.0 / total)
                row = out + i * load_i64(code, ATT.out + 3)
                scaled(row, load_i64(code, ATT.value_size), factor)
            if what & 2 != 0:
                log = C(math.log(total)) + load(tops, i)
                store(sums + i * step, 0, C(math.inf) if total == 0.0 else log)
        return 0

    @native
    def begin(code, out, scratch):
        """No key has been seen."""
        tops = scratch + load_i64(code, ATT.scratch_tops)
        totals = scratch + load_i64(code, ATT.scratch_totals)
        for i in range(load_i64(code, ATT.length)):
            store(tops, i, C(-math.inf))
            low.store_f64(totals, i, 0.0)
            if load_i64(code, ATT.what) & 1 != 0 and load_i64(code, ATT.keys) == 0:
                row = out + i * load_i64(code, ATT.out + 3)
                clear(row, load_i64(code, ATT.value_size) * size)
        return 0

    @native
    def meet(code, q, v, mask, out, i, rows, first, n, scratch):
        """Strips of queries i to i + rows and a block of n keys from `first` on."""
        x = scratch + load_i64(code, ATT.scratch_p)
        tops = scratch + load_i64(code, ATT.scratch_tops)
        totals = scratch + load_i64(code, ATT.scratch_totals)
        pitch, causal = load_i64(code, ATT.pitch), load_i64(code, ATT.causal)
        out_row, mask_row = load_i64(code, ATT.out + 3), load_i64(code, ATT.mask + 3)
        turned = scratch + load_i64(code, ATT.scratch_turned)
        panel_bytes = load_i64(code, ATT.size) * panel * size
        some = min(n, i + rows - first) if causal == 1 else n
        tiles = load_i64(code, ATT.tiles)
        at = q + i * load_i64(code, ATT.q + 3)
        strip(tiles, scratch, rows, at, turned, panel_bytes, x, some, 0)
        for r in range(rows):
            count = min(some, i + r + 1 - first) if causal == 1 else some
            here = i + r
            soften(
                code,
                x + r * pitch,
                count,
                some,
                mask + here * mask_row + first * load_i64(code, ATT.mask_column),
                out + here * out_row,
                tops + here * size,
                totals + here * 8,
            )
        if load_i64(code, ATT.what) & 1 != 0:
            params = scratch + PARAMS
            store_i64(params, words.TILE_K, some)
            at, c = v + first * load_i64(code, ATT.v + 3), out + i * out_row
            add = tiles if first == 0 else load_i64(code, ATT.add)
            strip(add, params, rows, x, at, panel * size, c, load_i64(code, ATT.value_size), 0)
        return 0

    @native
    def one_head(code, q, k, v, mask, out, sums, scratch):
        length, keys = load_i64(code, ATT.length), load_i64(code, ATT.keys)
        block, k_row = load_i64(code, ATT.block), load_i64(code, ATT.k + 3)
        turned = scratch + load_i64(code, ATT.scratch_turned)
        begin(code, out, scratch)
        for first in range(0, keys, block):
            n = min(block, keys - first)
            i = first if load_i64(code, ATT.causal) == 1 else 0
            if i < length:
                turn(k + first * k_row, k_row, n, load_i64(code, ATT.size), turned)
            while i < length:
                rows = strip_rows(length - i)
                meet(code, q, v, mask, out, i, rows, first, n, scratch)
                i += rows
        finish(code, out, sums, scratch)
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are sequences."""
        pitch, zero = load_i64(code, ATT.pitch), scratch + 2 * PARAMS
        store_i64(zero, 0, 0)
        features, q_row = load_i64(code, ATT.size), load_i64(code, ATT.q + 3)
        product(scratch, zero, features, q_row, size, panel * size, pitch)
        v_row, out_row = load_i64(code, ATT.v + 3), load_i64(code, ATT.out + 3)
        product(scratch + PARAMS, zero, 0, pitch, size, v_row, out_row)
        each = load_i64(code, ATT.each)
        for n in range(row0, row1):
            for head in range(load_i64(code, ATT.heads)):
                one_head(
                    code,
                    place(code, bases, ATT.q, n, head),
                    place(code, bases, ATT.k, n, head // each),
                    place(code, bases, ATT.v, n, head // each),
                    place(code, bases, ATT.mask, n, head),
                    place(code, bases, ATT.out, n, head),
                    place(code, bases, ATT.sums, n, head),
                    scratch,
                )
        return 0

    return kernel
