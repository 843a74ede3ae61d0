"""Matrix product with what follows it: strips of rows of C, a register tile after the other.

A worker computes its own rows of C. B is walked in blocks of columns that stay in the second-level
cache, either in place or copied into panels in this worker's scratch: each a tile wide, so that a
tile walks memory straight. A is read in place, or a strip of its rows is copied, where its columns
are far apart. What follows the product is done by the tile in registers, or, where no tile can do
it, by a chain over blocks of rows that are still in cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.strips import make_follow, make_strip, make_strip_rows
from gpubp.backends.numba_cpu.kernels.transpose import make_copy, make_transpose
from gpubp.backends.numba_cpu.target import lanes, tile_rows


def make_matmul(kind: Any) -> Any:
    """The matmul kernel for float32 or float64."""
    load_i64, store_i64 = low.load_i64, low.store_i64
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    width = lanes(kind)
    panel = 2 * width
    most = tile_rows()
    pitch, copied = tile_rows(), words.A_COPIED
    transpose, copy = make_transpose(kind), make_copy(kind, 2, width)
    copy_strip = make_copy(kind, max(copied // width, 1), min(width, copied))
    strip, strip_rows, follow = make_strip(kind), make_strip_rows(), make_follow(kind)

    @native
    def pack_strip(rows, k, a, ar, ac, out):
        """Copy some rows of A, all of k, to (k, pitch)."""
        done = 0
        if ar == size:
            # Whole vectors, which may read and write past these rows: but not past the last k, and
            # what they write there the next k overwrites.
            for p in range(k - 1):
                copy_strip(a + p * ac, out + p * (pitch * size))
            done = k - 1
        for p in range(done, k):
            for i in range(rows):
                store(out, p * pitch + i, load(a + i * ar + p * ac, 0))
        return 0

    @native
    def pack_a(m, k, a, ar, ac, out):
        """Copy m rows of A strip by strip; some of k at a time, so that memory is read by lines."""
        for first in range(0, k, 64):
            some = min(64, k - first)
            i, at = 0, out + first * (pitch * size)
            while i < m:
                rows = strip_rows(m - i)
                pack_strip(rows, some, a + i * ar + first * ac, ar, ac, at)
                at += k * (pitch * size)
                i += rows
        return 0

    @native
    def strips(code, tiles, params, m, a, order, b, b_panel, c, n, offset):
        """m rows of C, some columns. `order`: address of the numbers of A's rows, 0: in turn."""
        packed = load_i64(code, words.MM_PACK_A) == 1
        ar = load_i64(code, words.MM_A + 2)
        strip_bytes = load_i64(code, words.MM_K) * (pitch * size)
        cr = load_i64(params, words.TILE_C_ROW)
        i = 0
        while i < m:
            rows = strip_rows(m - i)
            if order != 0:
                for q in range(rows):
                    store_i64(params, words.TILE_A_ROWS + q, load_i64(order, i + q) * ar)
            strip(tiles, params, rows, a, b, b_panel, c + i * cr, n, offset)
            if order == 0:
                a += strip_bytes if packed else rows * ar
            i += rows
        return 0

    @native(inline=True)
    def row_of(b, br, order, p):
        """Where row p of B is."""
        return b + (p if order == 0 else load_i64(order, p)) * br

    @native
    def copy_rows(b, br, order, k, panels, out):
        """Whole panels of B (k, n), whose rows are contiguous; read row by row."""
        for p in range(k):
            row = row_of(b, br, order, p)
            for q in range(panels):
                copy(row + q * (panel * size), out + (q * k + p) * (panel * size))
        return 0

    @native
    def turn_columns(b, bc, k, out):
        """`width` columns of B (k, n), whose columns are contiguous, into a panel."""
        whole = k - k % width
        for p in range(0, whole, width):
            transpose(b + p * size, bc, out + p * (panel * size), panel * size)
        for p in range(whole, k):
            for j in range(width):
                store(out, p * panel + j, load(b + j * bc, p))
        return 0

    @native
    def pack_b(b, br, bc, order, k, n, out):
        """Copy B (k, n) panel by panel; a panel is (k, 2 vectors), its last columns unused.
        `order`: address of the numbers of its rows, 0: in turn.
        """
        start = 0
        if bc == size:
            copy_rows(b, br, order, k, n // panel, out)
            start = n - n % panel
        for j0 in range(start, n, panel):
            at = out + j0 * k * size
            columns = min(panel, n - j0)
            done = 0
            while br == size and order == 0 and columns - done >= width:
                turn_columns(b + (j0 + done) * bc, bc, k, at + done * size)
                done += width
            if done < columns:
                for p in range(k):
                    row = row_of(b, br, order, p)
                    for j in range(done, columns):
                        store(at, p * panel + j, load(row + (j0 + j) * bc, 0))
        return 0

    @native
    def prepare(code, bases, batch, c, params):
        """Fill in what the tiles of one product have in common."""
        store_i64(params, words.TILE_K, load_i64(code, words.MM_K))
        store_i64(params, words.TILE_C_ROW, load_i64(code, words.MM_C + 2))
        packed = load_i64(code, words.MM_PACK_A) == 1
        store_i64(
            params, words.TILE_A_COL, pitch * size if packed else load_i64(code, words.MM_A + 3)
        )
        for i in range(most):
            row = size if packed else load_i64(code, words.MM_A + 2)
            store_i64(params, words.TILE_A_ROWS + i, i * row)
        if load_i64(code, words.MM_PACK) == 0:
            store_i64(params, words.TILE_B_ROW, load_i64(code, words.MM_B + 2))
        else:
            store_i64(params, words.TILE_B_ROW, panel * size)
        follow(code, bases, c, params)
        return 0

    @native(inline=True)
    def order_at(code, bases, at):
        """Address of the index order, if an operand is read by it, else 0."""
        buffer = load_i64(code, at)
        return np.int64(0) if buffer < 0 else load_i64(bases, buffer)

    @native
    def product(code, bases, batch, row0, row1, column0, column1, kept, scratch):
        params = scratch
        m, n, k = (
            load_i64(code, words.MM_M),
            load_i64(code, words.MM_N),
            load_i64(code, words.MM_K),
        )
        a = load_i64(bases, load_i64(code, words.MM_A)) + load_i64(code, words.MM_A + 1)
        b = load_i64(bases, load_i64(code, words.MM_B)) + load_i64(code, words.MM_B + 1)
        a += batch * load_i64(code, words.MM_A + 4)
        b += batch * load_i64(code, words.MM_B + 4)
        ar = load_i64(code, words.MM_A + 2)
        a_order = order_at(code, bases, words.MM_A_ORDER)
        b_order = order_at(code, bases, words.MM_B_ORDER)
        br, bc = load_i64(code, words.MM_B + 2), load_i64(code, words.MM_B + 3)
        pack = load_i64(code, words.MM_PACK)
        b_panel = panel * size if pack == 0 else k * panel * size
        ac = load_i64(code, words.MM_A + 3)
        in_scratch = load_i64(code, words.MM_C_SCRATCH) == 1
        whole = scratch + load_i64(code, words.MM_SCRATCH_C)
        if not in_scratch:
            whole = load_i64(bases, load_i64(code, words.MM_C)) + load_i64(code, words.MM_C + 1)
        prepare(code, bases, batch, whole, params)
        tiles = load_i64(code, words.MM_TILES)
        chain = load_i64(code, words.MM_CHAIN)
        rows, columns = load_i64(code, words.MM_BLOCK), load_i64(code, words.MM_COLUMNS)
        for r in range(row0, row1, rows):
            stop = min(r + rows, row1)
            first = batch * m + r  # in rows of all batches together
            c = whole if in_scratch else whole + first * load_i64(code, words.MM_C + 2)
            top = a if a_order != 0 else a + r * ar
            numbers = a_order + 8 * r if a_order != 0 else 0
            if load_i64(code, words.MM_PACK_A) == 1:
                top = scratch + load_i64(code, words.MM_SCRATCH_A)
                pack_a(stop - r, k, a + r * ar, ar, ac, top)
            for j in range(column0, column1, columns):
                some = min(columns, column1 - j)
                at = b + j * bc
                if pack != 0:
                    packed = scratch + load_i64(code, words.MM_SCRATCH_B)
                    if pack == 2:
                        packed += (j - column0) * k * size
                    if pack == 1 or (r == row0 and kept == 0):
                        pack_b(at, br, bc, b_order, k, some, packed)
                    at = packed
                m_left = stop - r
                strips(code, tiles, params, m_left, top, numbers, at, b_panel, c, some, j * size)
            if chain != 0:
                low.call_kernel(
                    load_i64(code, words.MM_CHAIN_KERNEL),
                    code + 8 * chain,
                    bases,
                    first * n,
                    (first + stop - r) * n,
                    c - first * n * size,
                    scratch + load_i64(code, words.MM_SCRATCH_CHAIN),
                )
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are rows of C, or its columns; with batch axes, matrices of the first such axis.
        `tile`: 1, B has been copied to this scratch by a call before.
        """
        m, n = load_i64(code, words.MM_M), load_i64(code, words.MM_N)
        batches = load_i64(code, words.MM_BATCH)
        if load_i64(code, words.MM_BY_COLUMNS) == 1:
            product(code, bases, 0, 0, m, row0, row1, 0, scratch)
        elif batches == 0:
            product(code, bases, 0, row0, row1, 0, n, tile, scratch)
        else:
            for batch in range(row0 * batches, row1 * batches):
                product(code, bases, batch, 0, m, 0, n, 0, scratch)
        return 0

    return kernel
