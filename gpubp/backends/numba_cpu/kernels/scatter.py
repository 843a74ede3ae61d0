"""Sums of updates at indices, and what follows them: the gradient of a table and its update.

A worker owns rows of the result, so no two write the same ones, and each row's sum has the order of
the updates whatever the number of workers. What follows runs over blocks of rows whose sums never
leave the cache; for that the updates of a worker's rows are sorted by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native, types

load_i64, load_i32, store_i64 = low.load_i64, low.load_i32, low.store_i64
S = words.SCATTER_ADD.at
DIGIT = 1 << 8  # of the sort


@native(inline=True)
def _address(code, bases, at):
    return load_i64(bases, load_i64(code, at)) + load_i64(code, at + 1)


@native(inline=True)
def _index(indices, wide, i):
    return load_i64(indices, i) if wide else np.int64(load_i32(indices, i))


@native
def outside(indices, wide, count, size):
    """2, if an index is out of range, else 0."""
    status = 0
    for i in range(count):
        index = _index(indices, wide, i)
        if index < 0 or index >= size:
            status = 2
    return status


@native
def collect(indices, wide, count, first, stop, keys):
    """Keys of the updates of rows `first` to `stop`: row - first, then 32 bits of the update's
    number. Returns how many.
    """
    n = 0
    for i in range(count):
        index = _index(indices, wide, i)
        if first <= index < stop:
            store_i64(keys, n, ((index - first) << 32) + i)
            n += 1
    return n


@native
def in_order(keys, spare, counts, n, rows):
    """Sort n keys by row, those of a row staying in order; returns where they are now."""
    shift, left = 32, rows - 1
    while left > 0:
        for d in range(DIGIT + 1):
            store_i64(counts, d, 0)
        for i in range(n):
            d = (load_i64(keys, i) >> shift) & (DIGIT - 1)
            store_i64(counts, d + 1, load_i64(counts, d + 1) + 1)
        for d in range(DIGIT):
            store_i64(counts, d + 1, load_i64(counts, d + 1) + load_i64(counts, d))
        for i in range(n):
            key = load_i64(keys, i)
            d = (key >> shift) & (DIGIT - 1)
            at = load_i64(counts, d)
            store_i64(spare, at, key)
            store_i64(counts, d, at + 1)
        keys, spare = spare, keys
        shift += 8
        left //= DIGIT
    return keys


def make_scatter_add(kind: Any) -> Any:
    """out[o, indices[i]] += updates[o, i], in the order of i, from zero; then what follows."""
    load = low.make_load(kind)
    strip_load, strip_store = low.make_strip_access(kind)
    item = low.ITEMSIZE[kind]
    C = {types.float32: np.float32, types.float64: np.float64, types.int32: np.int32}.get(
        kind, np.int64
    )

    @native(inline=True)
    def clear(out, n):
        for j in range(n):
            strip_store(out, j, C(0))
        return 0

    @native(inline=True)
    def add_row(source, target, n):
        for j in range(n):
            strip_store(target, j, strip_load(target, j) + strip_load(source, j))
        return 0

    @native
    def plain(code, updates, indices, out, first, stop):
        """Rows `first` to `stop` of one result, in memory."""
        count, inner = load_i64(code, S.count), load_i64(code, S.inner)
        wide = load_i64(code, S.index_bytes) == 8
        clear(out + first * inner * item, (stop - first) * inner)
        for i in range(count):
            index = _index(indices, wide, i)
            if first <= index < stop:
                add_row(updates + i * inner * item, out + index * inner * item, inner)
        return 0

    @native
    def skips(code, bases):
        """Whether rows without an update may stay as they are: what follows is a step of gradient
        descent in place, which takes a finite multiple of 0 from them.
        """
        if load_i64(code, S.skips) == 0:
            return 0
        rate = load(_address(code, bases, S.rate), 0)
        return 1 if rate >= C(0) and rate - rate == C(0) else 0

    @native
    def followed(code, bases, updates, indices, out, start, first, stop, scratch):
        """Rows `first` to `stop` of one result, whose row 0 is element `start` of all, and what
        follows them. `out`: where it is, 0: in the scratch.
        """
        count, inner = load_i64(code, S.count), load_i64(code, S.inner)
        wide, block = load_i64(code, S.index_bytes) == 8, load_i64(code, S.block)
        keys = scratch + load_i64(code, S.scratch_keys)
        n = collect(indices, wide, count, first, stop, keys)
        keys = in_order(
            keys, keys + 8 * count, scratch + load_i64(code, S.scratch_counts), n, stop - first
        )
        sparse = skips(code, bases) == 1
        at, k = first, 0
        while at < stop and (k < n or not sparse):
            if sparse:
                at = first + (load_i64(keys, k) >> 32) // block * block
            end = min(at + block, stop)
            strip = out + at * inner * item if out != 0 else scratch
            clear(strip, (end - at) * inner)
            while k < n and first + (load_i64(keys, k) >> 32) < end:
                key = load_i64(keys, k)
                row = first + (key >> 32) - at
                source = updates + (key & ((1 << 32) - 1)) * inner * item
                add_row(source, strip + row * inner * item, inner)
                k += 1
            low.call_kernel(
                load_i64(code, S.chain_kernel),
                code + 8 * load_i64(code, S.chain),
                bases,
                start + at * inner,
                start + end * inner,
                strip - (start + at * inner) * item,
                scratch + load_i64(code, S.scratch_chain),
            )
            at = end
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Code: `words.SCATTER_ADD`. Status 2: an index is out of range."""
        size, count, inner = (
            load_i64(code, S.size),
            load_i64(code, S.count),
            load_i64(code, S.inner),
        )
        updates, indices = _address(code, bases, S.updates), _address(code, bases, S.indices)
        each, wide = load_i64(code, S.outer_per_row), load_i64(code, S.index_bytes) == 8
        chain, stored = load_i64(code, S.chain) != 0, load_i64(code, S.in_scratch) == 0
        from_o, to_o, first, stop = 0, 1, row0, row1
        if each > 0:
            from_o, to_o, first, stop = row0 * each, row1 * each, 0, size
        for o in range(from_o, to_o):
            source = updates + o * count * inner * item
            start = o * size * inner
            out = _address(code, bases, S.out) + start * item if stored else 0
            if chain:
                followed(code, bases, source, indices, out, start, first, stop, scratch)
            else:
                plain(code, source, indices, out, first, stop)
        return outside(indices, wide, count, size)

    return kernel
