"""Philox-4x32-10: the random words of `gpubp.ops.random`, bit for bit.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.backends.numba_cpu.kernels.language import native, types
from gpubp.backends.numba_cpu.kernels.lowlevel import load_i64, make_store

U = np.uint64
_MASK = U(0xFFFFFFFF)
_M0, _M1 = U(0xD2511F53), U(0xCD9E8D57)
_W0, _W1 = U(0x9E3779B9), U(0xBB67AE85)
_32, _8, _11 = U(32), U(8), U(11)


@native
def philox(c0, c1, c2, c3, k0, k1):
    """Four random 32-bit words, as uint64."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (
            (p1 >> _32) ^ c1 ^ k0,
            p1 & _MASK,
            (p0 >> _32) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@native(inline=True)
def block_words(state, stream, block):
    """The words of one block for the generator state at an address."""
    seed = U(load_i64(state, 0))
    counter = U(load_i64(state, 1))
    b = U(block)
    c3 = (U(stream) & _MASK) ^ (counter >> _32)
    return philox(b & _MASK, b >> _32, counter & _MASK, c3, seed & _MASK, seed >> _32)


def make_random(kind: Any) -> tuple[Any, Any]:
    """`fill(out, n, first, state, stream)` for uniform and normal numbers of a float type."""
    store = make_store(kind)
    single = kind is types.float32
    C = np.float32 if single else np.float64
    per_block = 4 if single else 2
    unit32 = np.float32(2.0**-24)
    unit64 = 2.0**-53

    @native
    def uniform(out, n, first, state, stream):
        i = 0
        while i < n:
            element = first + i
            lane = element % per_block
            w0, w1, w2, w3 = block_words(state, stream, element // per_block)
            while lane < per_block and i < n:
                if single:
                    low = w0 if lane == 0 else w1
                    high = w2 if lane == 2 else w3
                    word = low if lane < 2 else high
                    store(out, i, C(np.float32(np.int64(word >> _8)) * unit32))
                else:
                    a, b = (w0, w1) if lane == 0 else (w2, w3)
                    store(out, i, C(np.float64(np.int64(((a << _32) | b) >> _11)) * unit64))
                lane += 1
                i += 1
        return 0

    @native
    def normal(out, n, first, state, stream):
        for i in range(n):
            element = first + i
            w0, w1, w2, w3 = block_words(state, stream, element // 2)
            a, b = (w0, w1) if element % 2 == 0 else (w2, w3)
            u1 = (np.float64(np.int64(a)) + 1.0) * 2.0**-32
            u2 = np.float64(np.int64(b)) * 2.0**-32
            z = math.sqrt(-2.0 * math.log(u1)) * math.cos(2.0 * math.pi * u2)
            store(out, i, C(z))
        return 0

    return uniform, normal
