"""Matrix product with an epilogue: blocks of rows of C, each followed by its chain while in cache.

A worker computes its own rows of C. B is read in place if its rows are contiguous and it is not
huge, else copied into panels in this worker's scratch first: each a tile wide, so that a tile walks
memory straight. A is read in place, or a strip of its rows is copied, where its columns are far
apart.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.microkernel import (
    lanes,
    make_tile,
    make_transpose,
    tile_rows,
)


def make_matmul(kind: Any) -> Any:
    """The matmul kernel for float32 or float64."""
    load_i64 = low.load_i64
    load, store = low.make_load(kind), low.make_store(kind)
    size = low.ITEMSIZE[kind]
    width = lanes(kind)
    panel = 2 * width
    most = tile_rows()
    transpose = make_transpose(kind)
    strip_load, strip_store = low.make_strip_access(kind)
    full = {r: make_tile(kind, r, 2, False) for r in (8, 4, 2, 1)}
    edge = {r: make_tile(kind, r, 1, True) for r in (8, 4, 2, 1)}
    full8, full4, full2, full1 = full[8], full[4], full[2], full[1]
    edge8, edge4, edge2, edge1 = edge[8], edge[4], edge[2], edge[1]

    @njit(error_model="numpy")
    def strip(rows, k, a, ar, ac, b, br, b_panel, c, cr, n):
        """`rows` (8, 4, 2 or 1) rows of C, all columns, a panel of B after the other."""
        j = 0
        while n - j >= panel:
            at = c + j * size
            if rows == 8:
                full8(k, a, ar, ac, b, br, at, cr, 0)
            elif rows == 4:
                full4(k, a, ar, ac, b, br, at, cr, 0)
            elif rows == 2:
                full2(k, a, ar, ac, b, br, at, cr, 0)
            else:
                full1(k, a, ar, ac, b, br, at, cr, 0)
            j += panel
            b += b_panel
        while j < n:
            at = c + j * size
            columns = min(width, n - j)
            if rows == 8:
                edge8(k, a, ar, ac, b, br, at, cr, columns)
            elif rows == 4:
                edge4(k, a, ar, ac, b, br, at, cr, columns)
            elif rows == 2:
                edge2(k, a, ar, ac, b, br, at, cr, columns)
            else:
                edge1(k, a, ar, ac, b, br, at, cr, columns)
            j += width
            b += width * size
        return 0

    @njit(error_model="numpy")
    def pack_a(rows, k, a, ar, ac, out):
        """Copy some rows of A, all of k, to (k, rows)."""
        if rows == 8 and ar == size:
            for p in range(k):
                for i in range(8):
                    strip_store(out + p * (8 * size), i, strip_load(a + p * ac, i))
            return 0
        for p in range(k):
            for i in range(rows):
                store(out, p * rows + i, load(a + i * ar + p * ac, 0))
        return 0

    @njit(error_model="numpy")
    def block(m, k, a, ar, ac, b, br, b_panel, c, cr, n, packed_a):
        """m rows of C. `packed_a`: where to copy a strip of A to; 0: read A in place."""
        i = 0
        while i < m:
            rows = most
            while rows > m - i:
                rows //= 2
            at, row, column = a + i * ar, ar, ac
            if packed_a != 0:
                pack_a(rows, k, at, ar, ac, packed_a)
                at, row, column = packed_a, size, rows * size
            strip(rows, k, at, row, column, b, br, b_panel, c + i * cr, cr, n)
            i += rows
        return 0

    @njit(error_model="numpy")
    def pack_b(b, br, bc, k, n, out):
        """Copy B (k, n) panel by panel; a panel is (k, 2 vectors), its last columns unused."""
        for j0 in range(0, n, panel):
            columns = min(panel, n - j0)
            done = 0
            if br == size:
                while columns - done >= width:
                    whole = k - k % width
                    for p in range(0, whole, width):
                        source = b + (j0 + done) * bc + p * br
                        transpose(source, bc, out + (p * panel + done) * size, panel * size)
                    for p in range(whole, k):
                        for j in range(done, done + width):
                            store(out, p * panel + j, load(b + (j0 + j) * bc + p * br, 0))
                    done += width
            for p in range(k):
                for j in range(done, columns):
                    store(out, p * panel + j, load(b + (j0 + j) * bc + p * br, 0))
            out += k * panel * size
        return 0

    @njit(error_model="numpy")
    def product(code, bases, batch, row0, row1, scratch):
        m = load_i64(code, words.MM_M)
        n = load_i64(code, words.MM_N)
        k = load_i64(code, words.MM_K)
        a = load_i64(bases, load_i64(code, words.MM_A)) + load_i64(code, words.MM_A + 1)
        b = load_i64(bases, load_i64(code, words.MM_B)) + load_i64(code, words.MM_B + 1)
        a += batch * load_i64(code, words.MM_A + 4)
        b += batch * load_i64(code, words.MM_B + 4)
        ar, ac = load_i64(code, words.MM_A + 2), load_i64(code, words.MM_A + 3)
        br, bc = load_i64(code, words.MM_B + 2), load_i64(code, words.MM_B + 3)
        b_panel = panel * size
        if load_i64(code, words.MM_PACK) == 1:
            packed = scratch + load_i64(code, words.MM_SCRATCH_PACK)
            pack_b(b, br, bc, k, n, packed)
            b, br, b_panel = packed, panel * size, k * panel * size
        packed_a = 0
        if load_i64(code, words.MM_PACK_A) == 1:
            packed_a = scratch + load_i64(code, words.MM_SCRATCH_A)
        in_scratch = load_i64(code, words.MM_C_SCRATCH) == 1
        whole = scratch + load_i64(code, words.MM_SCRATCH)
        if not in_scratch:
            whole = load_i64(bases, load_i64(code, words.MM_C)) + load_i64(code, words.MM_C + 1)
        chain = load_i64(code, words.MM_CHAIN)
        rows = load_i64(code, words.MM_BLOCK)
        for r in range(row0, row1, rows):
            stop = min(r + rows, row1)
            first = batch * m + r  # in rows of all batches together
            c = whole if in_scratch else whole + first * n * size
            block(stop - r, k, a + r * ar, ar, ac, b, br, b_panel, c, n * size, n, packed_a)
            if chain != 0:
                tile = c - first * n * size
                after = scratch + load_i64(code, words.MM_SCRATCH_CHAIN)
                low.call_kernel(
                    load_i64(code, words.MM_CHAIN_KERNEL),
                    code + 8 * chain,
                    bases,
                    first * n,
                    (first + stop - r) * n,
                    tile,
                    after,
                )
        return 0

    @njit(error_model="numpy")
    def kernel(code, bases, row0, row1, tile, scratch):
        """Rows are rows of C; with batch axes, they are matrices of the first batch axis."""
        m = load_i64(code, words.MM_M)
        batches = load_i64(code, words.MM_BATCH)
        if batches == 0:
            product(code, bases, 0, row0, row1, scratch)
        else:
            for batch in range(row0 * batches, row1 * batches):
                product(code, bases, batch, 0, m, scratch)
        return 0

    return kernel
