"""Data movement: gathering a batch, indexing, joining; and the user's own ops."""

from __future__ import annotations

import numpy as np

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native, types

load_i64, load_i32, load_u8 = low.load_i64, low.load_i32, low.load_u8
store_i64, store_i32, store_u8 = low.store_i64, low.store_i32, low.store_u8

strip_load, strip_store = low.make_strip_access(types.int64)


@native(inline=True)
def _address(code, bases, at):
    return load_i64(bases, load_i64(code, at)) + load_i64(code, at + 1)


@native
def copy_bytes(source, target, n):
    """Copy n bytes, eight or four at a time where possible."""
    if n % 8 == 0:
        for i in range(n // 8):
            strip_store(target, i, strip_load(source, i))
    elif n % 4 == 0:
        for i in range(n // 4):
            store_i32(target, i, load_i32(source, i))
    else:
        for i in range(n):
            store_u8(target, i, load_u8(source, i))
    return 0


@native
def load_batch(code, bases, row0, row1, tile, scratch):
    """Code: bytes a row, index order (buffer, offset), resident array, output."""
    nbytes = load_i64(code, 0)
    order, source, out = (
        _address(code, bases, 1),
        _address(code, bases, 3),
        _address(code, bases, 5),
    )
    if nbytes == 8:
        for r in range(row0, row1):
            store_i64(out, r, load_i64(source, load_i64(order, r)))
        return 0
    for r in range(row0, row1):
        copy_bytes(source + load_i64(order, r) * nbytes, out + r * nbytes, nbytes)
    return 0


@native
def gather(code, bases, row0, row1, tile, scratch):
    """out[o, i] = data[o, indices[i]], rows of `nbytes` bytes.

    Code: outer, size of the indexed axis, indices, bytes, index bytes, indices a row of work (0:
    all at once), outer ones a row of work (0: all), data, indices, output. Status 2: an index is
    out of range.
    """
    outer, size, count = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
    nbytes, wide, per_row = load_i64(code, 3), load_i64(code, 4) == 8, load_i64(code, 5)
    each = load_i64(code, 6)
    data, indices, out = (
        _address(code, bases, 7),
        _address(code, bases, 9),
        _address(code, bases, 11),
    )
    first, stop = (row0 * per_row, row1 * per_row) if per_row > 0 else (0, count)
    from_o, to_o = (row0 * each, row1 * each) if each > 0 else (0, outer)
    status = 0
    for o in range(from_o, to_o):
        for i in range(first, stop):
            index = load_i64(indices, i) if wide else np.int64(load_i32(indices, i))
            if 0 <= index < size:
                source = data + (o * size + index) * nbytes
                copy_bytes(source, out + (o * count + i) * nbytes, nbytes)
            else:
                status = 2
    return status


@native
def concat(code, bases, row0, row1, tile, scratch):
    """Join along an axis. Code: inputs, outer a row of work, bytes a joined row, output, then for
    each input its bytes a row, buffer and offset.
    """
    n, per_row, nbytes = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
    out = _address(code, bases, 3)
    at = 0
    for k in range(n):
        x = code + 8 * (5 + 3 * k)
        part = load_i64(x, 0)
        source = _address(x, bases, 1)
        for o in range(row0 * per_row, row1 * per_row):
            copy_bytes(source + o * part, out + o * nbytes + at, part)
        at += part
    return 0


@native
def unslice(code, bases, row0, row1, tile, scratch):
    """Place an array into zeros, by rows of the output. Code: bytes a row, of an item and of a run
    of items, dimensions between, input, output, first item in a row; rows of the input, where its
    first one stands, and the step to the next; then for each dimension its size and step in items.
    """
    row_bytes, item, run = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
    ndim, first = load_i64(code, 3), load_i64(code, 8)
    source, out = _address(code, bases, 4), _address(code, bases, 6)
    rows, start, step = load_i64(code, 9), load_i64(code, 10), load_i64(code, 11)
    for i in range(row0 * row_bytes, row1 * row_bytes):
        store_u8(out, i, np.uint8(0))
    count = 1
    for d in range(ndim):
        count *= load_i64(code, 12 + 2 * d)
    for k in range(rows):
        row = start + k * step
        if row0 <= row < row1:
            for i in range(count):
                rest, at = i, first
                for d in range(ndim - 1, -1, -1):
                    size = load_i64(code, 12 + 2 * d)
                    at += (rest % size) * load_i64(code, 13 + 2 * d)
                    rest //= size
                copy_bytes(source + (k * count + i) * run, out + row * row_bytes + at * item, run)
    return 0


@native
def custom(code, bases, row0, row1, tile, scratch):
    """Code: address of a C function `int64 (int64)` that takes the address of the table of buffers
    and gives the status.
    """
    return low.call_python(load_i64(code, 0), bases)
