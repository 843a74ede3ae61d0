"""Gradients of attention by queries, keys and values, in one pass over blocks of scores.

Weights are made again from the scores and their sums, so nothing of their size was kept. A block of
keys, turned once, meets the queries a block at a time: p and d live in scratch, and three products
add what they say to the gradients. Those by queries begin with the first block of keys, the others
are cleared, for some keys may be seen by nobody. See `kernels.attention`.
"""

from __future__ import annotations

from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.attention import ATT, PARAMS, make_blocks
from gpubp.backends.numba_cpu.kernels.attention_rows import make_rows
from gpubp.backends.numba_cpu.kernels.images import clear
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR
from gpubp.backends.numba_cpu.kernels.strips import make_strip, make_strip_rows

QUERIES, KEYS, VALUES = 1, 2, 4  # bits of `what`


def make_attention_grad(kind: Any) -> Any:
    """The kernel for float32 or float64."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, size, C = low.make_load(kind), low.ITEMSIZE[kind], CONSTRUCTOR[kind]
    blocks, strip, strip_rows = make_blocks(kind), make_strip(kind), make_strip_rows()
    turn, place, number, masked = blocks.turn, blocks.place, blocks.number, blocks.masked
    product, panel, gradients = blocks.product, blocks.panel, make_rows(kind).gradients

    @native
    def clear_rows(x, row, n, features):
        for i in range(n):
            clear(x + i * row, features * size)
        return 0

    @native
    def rows_of_scores(code, q, g, sums, delta, mask, i, at, rows, first, n, scratch):
        """p and d of some queries, i being the first one's number, `at` its row in the block."""
        pitch, scale = load_i64(code, ATT.pitch), number(code)
        p = scratch + load_i64(code, ATT.scratch_p) + at * pitch
        d = scratch + load_i64(code, ATT.scratch_d) + at * pitch
        causal, kind_of_mask = load_i64(code, ATT.causal), load_i64(code, ATT.mask_kind)
        some = min(n, i + rows - first) if causal == 1 else n
        tiles, of_keys = load_i64(code, ATT.tiles), scratch + load_i64(code, ATT.scratch_turned)
        of_values = scratch + load_i64(code, ATT.scratch_turned_v)
        x = q + i * load_i64(code, ATT.q + 3)
        k_panel, v_panel = load_i64(code, ATT.size), load_i64(code, ATT.value_size)
        strip(tiles, scratch, rows, x, of_keys, k_panel * panel * size, p, some, 0)
        x = g + i * load_i64(code, ATT.g + 3)
        strip(tiles, scratch + PARAMS, rows, x, of_values, v_panel * panel * size, d, some, 0)
        for r in range(rows):
            count = min(some, i + r + 1 - first) if causal == 1 else some
            shift = scale
            if kind_of_mask > 0:
                there = mask + (i + r) * load_i64(code, ATT.mask + 3)
                there += first * load_i64(code, ATT.mask_column)
                masked(code, p + r * pitch, count, there, scale)
                shift = C(1)
            gradients(
                p + r * pitch,
                d + r * pitch,
                count,
                n,
                shift,
                scale,
                load(sums + (i + r) * load_i64(code, ATT.sums + 3), 0),
                load(delta + (i + r) * load_i64(code, ATT.delta + 3), 0),
            )
        return some

    @native
    def to_queries(code, k, dq, i, at, rows, first, some, scratch):
        """d k of a strip of queries."""
        if load_i64(code, ATT.what) & QUERIES == 0:
            return 0
        params = scratch + 2 * PARAMS
        store_i64(params, words.TILE_K, some)
        d = scratch + load_i64(code, ATT.scratch_d) + at * load_i64(code, ATT.pitch)
        b, c = k + first * load_i64(code, ATT.k + 3), dq + i * load_i64(code, ATT.dq + 3)
        add = load_i64(code, ATT.tiles if first == 0 else ATT.add)
        features = load_i64(code, ATT.size)
        strip(add, params, rows, d, b, panel * size, c, features, 0)
        return 0

    @native
    def to_keys(code, params, x, b, b_row, c, c_row, features, begin, count, first, n):
        """x^T b of a block of queries, from number `begin` on: x is (count, n)."""
        pitch, add = load_i64(code, ATT.pitch), load_i64(code, ATT.add)
        j = 0
        while j < n:
            rows = strip_rows(n - j)
            skipped = 0
            if load_i64(code, ATT.causal) == 1:
                skipped = max(first + j - begin, 0)
            if skipped < count:
                store_i64(params, words.TILE_K, count - skipped)
                a, at = x + skipped * pitch + j * size, b + (begin + skipped) * b_row
                strip(add, params, rows, a, at, panel * size, c + j * c_row, features, 0)
            j += rows
        return 0

    @native
    def block_of_keys(code, q, k, g, sums, delta, mask, dq, dk, dv, first, n, scratch):
        """All queries that see some of n keys from `first` on."""
        length, many, what = (
            load_i64(code, ATT.length),
            load_i64(code, ATT.rows),
            load_i64(code, ATT.what),
        )
        p, d = scratch + load_i64(code, ATT.scratch_p), scratch + load_i64(code, ATT.scratch_d)
        q_row, g_row = load_i64(code, ATT.q + 3), load_i64(code, ATT.g + 3)
        dk_row, dv_row = load_i64(code, ATT.dk + 3), load_i64(code, ATT.dv + 3)
        features, of_values = load_i64(code, ATT.size), load_i64(code, ATT.value_size)
        for begin in range(first if load_i64(code, ATT.causal) == 1 else 0, length, many):
            count, at = min(many, length - begin), 0
            while at < count:
                rows = strip_rows(count - at)
                i = begin + at
                some = rows_of_scores(code, q, g, sums, delta, mask, i, at, rows, first, n, scratch)
                to_queries(code, k, dq, i, at, rows, first, some, scratch)
                at += rows
            if what & KEYS != 0:
                params, c = scratch + 3 * PARAMS, dk + first * dk_row
                to_keys(code, params, d, q, q_row, c, dk_row, features, begin, count, first, n)
            if what & VALUES != 0:
                params, c = scratch + 4 * PARAMS, dv + first * dv_row
                to_keys(code, params, p, g, g_row, c, dv_row, of_values, begin, count, first, n)
        return 0

    @native
    def one_head(code, bases, sequence, head, scratch):
        keys, block = load_i64(code, ATT.keys), load_i64(code, ATT.block)
        group = head // load_i64(code, ATT.each)
        q, g = place(code, bases, ATT.q, sequence, head), place(code, bases, ATT.g, sequence, head)
        k = place(code, bases, ATT.k, sequence, group)
        v = place(code, bases, ATT.v, sequence, group)
        sums = place(code, bases, ATT.sums, sequence, head)
        delta = place(code, bases, ATT.delta, sequence, head)
        mask = place(code, bases, ATT.mask, sequence, head)
        dq = place(code, bases, ATT.dq, sequence, head)
        dk = place(code, bases, ATT.dk, sequence, group)
        dv = place(code, bases, ATT.dv, sequence, group)
        what, features = load_i64(code, ATT.what), load_i64(code, ATT.size)
        if what & QUERIES != 0 and keys == 0:
            clear_rows(dq, load_i64(code, ATT.dq + 3), load_i64(code, ATT.length), features)
        if head % load_i64(code, ATT.each) == 0:
            if what & KEYS != 0:
                clear_rows(dk, load_i64(code, ATT.dk + 3), keys, features)
            if what & VALUES != 0:
                clear_rows(dv, load_i64(code, ATT.dv + 3), keys, load_i64(code, ATT.value_size))
        k_row, v_row = load_i64(code, ATT.k + 3), load_i64(code, ATT.v + 3)
        for first in range(0, keys, block):
            n = min(block, keys - first)
            turn(
                k + first * k_row, k_row, n, features, scratch + load_i64(code, ATT.scratch_turned)
            )
            at = scratch + load_i64(code, ATT.scratch_turned_v)
            turn(v + first * v_row, v_row, n, load_i64(code, ATT.value_size), at)
            block_of_keys(code, q, k, g, sums, delta, mask, dq, dk, dv, first, n, scratch)
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are sequences."""
        pitch, zero = load_i64(code, ATT.pitch), scratch + 5 * PARAMS
        store_i64(zero, 0, 0)
        features, of_values = load_i64(code, ATT.size), load_i64(code, ATT.value_size)
        q_row, g_row = load_i64(code, ATT.q + 3), load_i64(code, ATT.g + 3)
        dq_row, dk_row = load_i64(code, ATT.dq + 3), load_i64(code, ATT.dk + 3)
        product(scratch, zero, features, q_row, size, panel * size, pitch)
        product(scratch + PARAMS, zero, of_values, g_row, size, panel * size, pitch)
        k_row = load_i64(code, ATT.k + 3)
        product(scratch + 2 * PARAMS, zero, 0, pitch, size, k_row, dq_row)
        product(scratch + 3 * PARAMS, zero, 0, size, pitch, q_row, dk_row)
        dv_row = load_i64(code, ATT.dv + 3)
        product(scratch + 4 * PARAMS, zero, 0, size, pitch, g_row, dv_row)
        for n in range(row0, row1):
            for head in range(load_i64(code, ATT.heads)):
                one_head(code, bases, n, head, scratch)
        return 0

    return kernel
