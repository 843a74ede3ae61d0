"""Pools of images (N, *sizes, C), and what undoes one.

A worker has whole images. A window is clipped to the image, so nothing outside of it is read. Sums
run over taps, and gradients over windows, in their order, from 0.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native
from gpubp.backends.numba_cpu.kernels.pool_runs import make_run

load_i64, load_i32 = low.load_i64, low.load_i32
P, U = words.POOL.at, words.UNPOOL.at

# By the ends of kernels' names: what is done, and whether windows that write to images lie apart.
POOLS = {
    "max_pool": ("max", False),
    "max_pool_indices": ("indices", False),
    "max_pool_pick": ("pick", False),
    "max_pool_grad": ("max_grad", False),
    "max_pool_grad_apart": ("max_grad", True),
    "sum_pool": ("sum", False),
    "sum_pool_grad": ("sum_grad", False),
    "sum_pool_grad_apart": ("sum_grad", True),
}
OF_INTEGERS = ("max_pool", "max_pool_indices")


def make_pools(kind: Any) -> SimpleNamespace:
    """The kernels for float32 or float64; of integers those of `OF_INTEGERS`."""
    names = POOLS if kind.kind == "f" else OF_INTEGERS
    return SimpleNamespace(**{name: _make_pool(kind, *POOLS[name]) for name in names})


@native(inline=True)
def _address(code, bases, at):
    return load_i64(bases, load_i64(code, at)) + load_i64(code, at + 1)


@native(inline=True)
def _first(begin, dilation):
    """The first tap inside."""
    return (dilation - 1 - begin) // dilation if begin < 0 else 0


@native(inline=True)
def _count(begin, first, dilation, kernel, size):
    """How many taps from the first one on are inside."""
    room = size - begin
    stop = min(kernel, (room + dilation - 1) // dilation) if room > 0 else 0
    return max(stop - first, 0)


def _make_pool(kind: Any, pool: str, apart: bool) -> Any:
    run = make_run(kind, pool, apart)
    _, strip_store = low.make_strip_access(kind)
    item = low.ITEMSIZE[kind]
    INTO_IMAGES = pool.endswith("grad")
    C = np.float32 if item == 4 else np.float64

    @native
    def line(code, a, b, w, nd, nh, place):
        """All windows of a line; addresses are those of the lines' first elements."""
        stride, pad = load_i64(code, P.stride_w), load_i64(code, P.pad_w)
        kernel, spread = load_i64(code, P.kernel_w), load_i64(code, P.dilation_w)
        found, size = load_i64(code, P.found_w), load_i64(code, P.size_w)
        inner, outer = load_i64(code, P.inner), load_i64(code, P.outer)
        pixel, window = load_i64(code, P.channels) * item, load_i64(code, P.window)
        limit = load_i64(code, P.loose)
        c = 0
        while c < found:
            begin = c * stride - pad
            first = _first(begin, spread)
            nw = _count(begin, first, spread, kernel, size)
            count = outer - c if inner <= c < outer else 1
            at = begin + first * spread
            last, step = (at + (nw - 1) * spread, stride) if INTO_IMAGES else (c, 1)
            loose = min((limit - last) // step + 1, count) if limit >= last else 0
            x = at * pixel
            run(code, a + x, b + x, w + c * window, count, loose, nd, nh, nw, place + at)
            c += count
        return 0

    @native
    def image(code, a, b, w):
        """All lines of windows of an image."""
        depth, height = load_i64(code, P.size_d), load_i64(code, P.size_h)
        width = load_i64(code, P.size_w)
        found_h, found_w = load_i64(code, P.found_h), load_i64(code, P.found_w)
        pixel, window = load_i64(code, P.channels) * item, load_i64(code, P.window)
        spread_d, spread_h = load_i64(code, P.dilation_d), load_i64(code, P.dilation_h)
        for i in range(load_i64(code, P.found_d)):
            d = i * load_i64(code, P.stride_d) - load_i64(code, P.pad_d)
            first_d = _first(d, spread_d)
            nd = _count(d, first_d, spread_d, load_i64(code, P.kernel_d), depth)
            d += first_d * spread_d
            for j in range(found_h):
                h = j * load_i64(code, P.stride_h) - load_i64(code, P.pad_h)
                first_h = _first(h, spread_h)
                nh = _count(h, first_h, spread_h, load_i64(code, P.kernel_h), height)
                h += first_h * spread_h
                place = (d * height + h) * width
                x = place * pixel
                line(code, a + x, b + x, w + (i * found_h + j) * found_w * window, nd, nh, place)
        return 0

    @native
    def follow(code, bases, n, size, out, scratch):
        """What follows, over image n of a result of so many elements; `out`: where it is."""
        chain = load_i64(code, P.chain)
        if chain != 0:
            low.call_kernel(
                load_i64(code, P.chain_kernel),
                code + 8 * chain,
                bases,
                n * size,
                (n + 1) * size,
                out - n * size * item,
                scratch + load_i64(code, P.scratch_chain),
            )
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Code: `words.POOL`."""
        image_bytes, windows_bytes = load_i64(code, P.image), load_i64(code, P.windows)
        per_row, in_scratch = load_i64(code, P.per_row), load_i64(code, P.in_scratch) == 1
        for n in range(row0 * per_row, row1 * per_row):
            x = n * image_bytes
            a, b = _address(code, bases, P.a) + x, _address(code, bases, P.b) + x
            w = _address(code, bases, P.w) + n * windows_bytes
            if INTO_IMAGES:
                b = scratch if in_scratch else b
                if load_i64(code, P.clear) == 1:
                    for i in range(image_bytes // item):
                        strip_store(b, i, C(0))
            else:
                w = scratch if in_scratch else w
            image(code, a, b, w)
            if INTO_IMAGES:
                follow(code, bases, n, image_bytes // item, b, scratch)
            else:
                follow(code, bases, n, windows_bytes // item, w, scratch)
        return 0

    return kernel


def make_unpool(kind: Any) -> Any:
    """out[r, indices[r, i]] = values[r, i] into zeros, in the order of i."""
    load, store = low.make_load(kind), low.make_store(kind)
    _, strip_store = low.make_strip_access(kind)
    item = low.ITEMSIZE[kind]
    C = np.float32 if item == 4 else np.float64

    @native
    def unpool(code, bases, row0, row1, tile, scratch):
        """Code: `words.UNPOOL`. Status 2: an index is out of range."""
        count, size, per_row = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
        wide = load_i64(code, 3) == 8
        status = 0
        for r in range(row0 * per_row, row1 * per_row):
            values, indices = _address(code, bases, U.values), _address(code, bases, U.indices)
            out = _address(code, bases, U.out) + r * size * item
            for i in range(size):
                strip_store(out, i, C(0))
            for i in range(r * count, (r + 1) * count):
                index = load_i64(indices, i) if wide else np.int64(load_i32(indices, i))
                if 0 <= index < size:
                    store(out, index, load(values, i))
                else:
                    status = 2
        return status

    return unpool
