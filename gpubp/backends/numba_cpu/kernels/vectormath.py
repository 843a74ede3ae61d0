"""Activations on LLVM vectors of float32, for the epilogues of the register tiles.

The same approximations as `fastmath`, whose coefficients and bounds they share.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels import fastmath

I32 = ir.IntType(32)


class VectorMath:
    """Emits arithmetic on vectors.

    Args:
        builder: where to.
        vector: the type.
        fma: emits a * b + c.
        absolute: emits |a|.
    """

    def __init__(self, builder: Any, vector: Any, fma: Any, absolute: Any) -> None:
        self.builder, self.vector = builder, vector
        self.fma, self.absolute = fma, absolute

    def constant(self, value: Any) -> Any:
        """A number in every lane."""
        return ir.Constant(self.vector, [float(value)] * self.vector.count)

    def _polynomial(self, x: Any, coefficients: Any) -> Any:
        """Horner's rule; the constant term first."""
        total = self.constant(coefficients[-1])
        for c in coefficients[-2::-1]:
            total = self.fma(total, x, self.constant(c))
        return total

    def rational(self, x: Any, coefficients: Any, limit: float, end: float = 1.0) -> Any:
        """x P(x^2) / Q(x^2), and `end` with the sign of x from `limit` on; NaN stays."""
        builder, zero = self.builder, self.constant(0.0)
        z = builder.fmul(x, x)
        p, q = (self._polynomial(z, c) for c in coefficients)
        y = builder.fdiv(builder.fmul(x, p), q)
        inside = builder.fcmp_ordered("<", self.absolute(x), self.constant(limit))
        below = builder.select(builder.fcmp_ordered("<", x, zero), self.constant(-end), x)
        sign = builder.select(builder.fcmp_ordered(">", x, zero), self.constant(end), below)
        return builder.select(inside, y, sign)

    def exp(self, x: Any) -> Any:
        """e^x; 0 below the lowest argument."""
        builder = self.builder
        lowest = self.constant(fastmath.LOWEST)
        small = builder.fcmp_ordered("<", x, lowest)
        bounded = builder.select(small, lowest, x)
        magic = self.constant(fastmath.ROUND)
        shifted = self.fma(bounded, self.constant(fastmath.LOG2E), magic)
        n = builder.fneg(builder.fsub(shifted, magic))
        r = self.fma(n, self.constant(fastmath.LN2_HIGH), bounded)
        r = self.fma(n, self.constant(fastmath.LN2_LOW), r)
        p = self._polynomial(r, fastmath.EXP[::-1])
        y = builder.fadd(self.fma(p, builder.fmul(r, r), r), self.constant(1.0))
        integers = ir.VectorType(I32, self.vector.count)
        shift = ir.Constant(integers, [23] * self.vector.count)
        exponent = builder.shl(builder.bitcast(shifted, integers), shift)
        y = builder.bitcast(builder.add(builder.bitcast(y, integers), exponent), self.vector)
        y = builder.select(small, self.constant(0.0), y)
        fits = builder.fcmp_ordered("<=", x, self.constant(fastmath.HIGHEST))
        return builder.select(fits, y, builder.fadd(x, self.constant(math.inf)))

    def sigmoid(self, x: Any) -> Any:
        """1 / (1 + e^-x)."""
        one = self.constant(1.0)
        return self.builder.fdiv(one, self.builder.fadd(one, self.exp(self.builder.fneg(x))))

    def tanh(self, x: Any) -> Any:
        """The hyperbolic tangent."""
        return self.rational(x, fastmath.TANH, fastmath.TANH_LIMIT)

    def gelu(self, x: Any) -> Any:
        """x times the normal distribution function."""
        half = self.builder.fmul(x, self.constant(0.5))
        return self.fma(half, self.rational(x, fastmath.NORMAL, fastmath.NORMAL_LIMIT), half)

    def gelu_slope(self, x: Any) -> Any:
        """The derivative of GELU."""
        y = self.rational(x, fastmath.SLOPE, fastmath.SLOPE_LIMIT, 0.5)
        return self.builder.fadd(y, self.constant(0.5))
