"""Scalar functions of one float type that the op formulas use, as functions that are inlined."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpubp.backends.numba_cpu.kernels.fastmath import fast_functions
from gpubp.backends.numba_cpu.kernels.language import native, types

CONSTRUCTOR: dict[Any, Any] = {
    types.float32: np.float32,
    types.float64: np.float64,
    types.int64: np.int64,
}


def _whole(inline: Any) -> dict[str, Any]:
    """Division of integers: 0 by 0, as NumPy; by -1 apart: the smallest one has no opposite."""

    @inline
    def floordiv(a, b):
        return -a if b == -1 else a // (1 if b == -1 else b)

    @inline
    def fmod(a, b):
        by = 1 if b == -1 else b
        rest = a % by
        return rest - by if rest != 0 and (a < 0) != (by < 0) else rest

    return {"floordiv": floordiv, "fmod": fmod}


def make_math(kind: Any) -> SimpleNamespace:
    """The helpers named in `opcodes.FUNCTORS`, in the arithmetic of `kind`."""
    C = CONSTRUCTOR[kind]
    inline = native(contract=True, inline=True)

    @inline
    def truncate(a):
        return C(math.trunc(a))

    if kind is types.int64:

        @inline
        def same(a):
            return a

        return SimpleNamespace(C=C, I32=np.int32, F32=np.float32, truncate=same, **_whole(inline))

    @inline
    def power(a, b):
        return C(math.pow(a, b))

    @inline
    def floor(a):
        return C(np.floor(a))

    fast = fast_functions(kind)
    exp_below, sigmoid, log1p = fast.exp_below, fast.sigmoid, fast.log1p

    @inline
    def silu_slope(x):
        s = sigmoid(x)
        return s * (C(1) + x * (C(1) - s))

    @inline
    def softplus(x, beta, threshold):
        z = x * beta
        soft = (max(z, C(0)) + log1p(exp_below(-abs(z)))) / beta
        return x if z > threshold else soft

    # (1 + tanh(u)) / 2 is the sigmoid of 2 u, which keeps its digits where tanh(u) is near -1.
    k0 = C(2.0 * math.sqrt(2.0 / math.pi))
    k1, k2 = C(0.044715 * k0), C(3 * 0.044715 * k0)

    @inline
    def gelu_tanh(x):
        return x * sigmoid(x * (x * x * k1 + k0))

    @inline
    def gelu_tanh_slope(x):
        near = C(-40) if x < C(-40) else x  # NaN stays
        near = C(40) if near > C(40) else near
        z = near * near
        s = sigmoid(near * (z * k1 + k0))
        return s + s * (C(1) - s) * near * (z * k2 + k0)

    @inline
    def floordiv(a, b):
        """As Python and NumPy: from the rest, which is exact, not from a / b."""
        rest = math.fmod(a, b)
        whole = (a - rest) / b
        if (rest < C(0) and b > C(0)) or (rest > C(0) and b < C(0)):
            whole = whole - C(1)
        down = C(np.floor(whole))
        near = down + C(1) if whole - down > C(0.5) else down
        return a / b if b == C(0) else (a / b * C(0) if whole == C(0) else near)

    # Of float32 there is none for a single number: see `vectormath`.
    only64 = {n: getattr(fast, n) for n in ("gelu", "gelu_slope") if hasattr(fast, n)}
    return SimpleNamespace(
        C=C,
        I32=np.int32,
        F32=np.float32,
        truncate=truncate,
        power=power,
        fmod=math.fmod,
        floordiv=floordiv,
        floor=floor,
        sigmoid=sigmoid,
        silu_slope=silu_slope,
        softplus=softplus,
        **only64,
        gelu_tanh=gelu_tanh,
        gelu_tanh_slope=gelu_tanh_slope,
        exp=fast.exp,
        exp_below=exp_below,
        log=fast.log,
        log1p=fast.log1p,
        expm1=fast.expm1,
        sqrt=math.sqrt,
        sin=math.sin,
        cos=math.cos,
        atan=math.atan,
        tanh=fast.tanh,
        erf=fast.erf,
    )
