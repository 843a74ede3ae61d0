"""Activations on LLVM vectors of float32, for the epilogues of the register tiles and for strips.

The same approximations as `fastmath`, whose coefficients and bounds they share. GELU and its slope
are within 1e-5 relative (the slope away from its zero at -0.75), 3e-7 absolute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels import coefficients
from gpubp.backends.numba_cpu.kernels.fastmath import scaled
from gpubp.backends.numba_cpu.target import has_fma

I32 = ir.IntType(32)


class VectorMath:
    """Emits arithmetic on vectors.

    Args:
        builder: where to. Its block may be another one afterwards.
        vector: the type, of any float; the functions are for float32.
    """

    def __init__(self, builder: Any, vector: Any) -> None:
        self.builder, self.vector = builder, vector

    def constant(self, value: Any) -> Any:
        """A number in every lane."""
        return ir.Constant(self.vector, [float(value)] * self.vector.count)

    def intrinsic(self, name: str, *args: Any) -> Any:
        """A function of LLVM's on whole vectors, such as "sqrt"."""
        bits = 32 if isinstance(self.vector.element, ir.FloatType) else 64
        symbol = f"llvm.{name}.v{self.vector.count}f{bits}"
        module = self.builder.module
        function = module.globals.get(symbol)
        if function is None:
            kind = ir.FunctionType(self.vector, [self.vector] * len(args))
            function = ir.Function(module, kind, symbol)
        return self.builder.call(function, args)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the CPU can."""
        if not has_fma():
            return self.builder.fadd(self.builder.fmul(a, b), c)
        return self.intrinsic("fma", a, b, c)

    def absolute(self, a: Any) -> Any:
        """|a|."""
        return self.intrinsic("fabs", a)

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

    def _at_least(self, low: Any, x: Any) -> Any:
        """The larger of both; NaN stays."""
        builder, bound = self.builder, self.constant(low)
        return builder.select(builder.fcmp_ordered("<", x, bound), bound, x)

    def exp_below(self, x: Any) -> Any:
        """e^x for x up to 0."""
        builder = self.builder
        bounded = self._at_least(coefficients.LOWEST, x)
        magic = self.constant(coefficients.ROUND)
        shifted = self.fma(bounded, self.constant(coefficients.LOG2E), magic)
        n = builder.fneg(builder.fsub(shifted, magic))
        r = self.fma(n, self.constant(coefficients.LN2_HIGH), bounded)
        r = self.fma(n, self.constant(coefficients.LN2_LOW), r)
        p = self._polynomial(r, coefficients.EXP[::-1])
        y = builder.fadd(self.fma(p, builder.fmul(r, r), r), self.constant(1.0))
        return scaled(builder, y, shifted, ir.VectorType(I32, self.vector.count), 23)

    def sigmoid(self, x: Any) -> Any:
        """1 / (1 + e^-x)."""
        builder, one = self.builder, self.constant(1.0)
        t = self.exp_below(builder.fneg(self.absolute(x)))
        below = builder.fcmp_ordered("<", x, self.constant(0.0))
        return builder.fdiv(builder.select(below, t, one), builder.fadd(one, t))

    def tanh(self, x: Any) -> Any:
        """The hyperbolic tangent."""
        return self.rational(x, coefficients.TANH, coefficients.TANH_LIMIT)

    def gelu(self, x: Any) -> Any:
        """x times the normal distribution function."""
        half = self.builder.fmul(x, self.constant(0.5))
        near = self.fma(
            half, self.rational(x, coefficients.NORMAL, coefficients.NORMAL_LIMIT), half
        )
        return self._with_tail(x, near, self._gelu_tail)

    def gelu_slope(self, x: Any) -> Any:
        """The derivative of GELU: the normal distribution function, and x times its density."""
        y = self.rational(x, coefficients.SLOPE, coefficients.SLOPE_LIMIT, 0.5)
        near = self.builder.fadd(y, self.constant(0.5))
        return self._with_tail(x, near, self._gelu_slope_tail)

    def _with_tail(self, x: Any, near: Any, tail: Callable[[Any], Any]) -> Any:
        """`tail(x)` in lanes below TAIL, `near` in the others; vectors without such lanes are most,
        and go past it."""
        builder = self.builder
        far = builder.fcmp_ordered("<", x, self.constant(coefficients.TAIL))
        lanes = ir.IntType(self.vector.count)
        some = builder.icmp_unsigned("!=", builder.bitcast(far, lanes), lanes(0))
        before = builder.block
        with builder.if_then(some, likely=False):
            mixed = builder.select(far, tail(x), near)
            inside = builder.block
        result = builder.phi(self.vector)
        result.add_incoming(near, before)
        result.add_incoming(mixed, inside)
        return result

    def _density(self, x: Any) -> tuple[Any, Any, Any, Any]:
        """For x far below 0: x in bounds, the normal density there, 1 / x^2, -GELU / density."""
        builder = self.builder
        x = self._at_least(coefficients.TAIL_END, x)
        z = builder.fmul(x, x)
        lost = self.fma(x, x, builder.fneg(z))  # of x^2: as large as the exponent's rounding
        kept = self.fma(lost, self.constant(-0.5), self.constant(1.0))
        density = self.exp_below(builder.fmul(z, self.constant(-0.5)))
        density = builder.fmul(builder.fmul(kept, self.constant(coefficients.DENSITY)), density)
        w = builder.fdiv(self.constant(1.0), z)
        return x, density, w, self._polynomial(w, coefficients.RATIO)

    def _gelu_tail(self, x: Any) -> Any:
        """x times the distribution function, which is density ratio / |x|; NaN at -infinity."""
        builder = self.builder
        bounded, density, w, ratio = self._density(x)
        inverse = builder.fneg(builder.fmul(bounded, w))
        return builder.fmul(x, builder.fmul(inverse, builder.fmul(density, ratio)))

    def _gelu_slope_tail(self, x: Any) -> Any:
        """x density + GELU / x."""
        x, density, w, ratio = self._density(x)
        rest = self.fma(self.builder.fneg(ratio), w, self.constant(1.0))
        return self.builder.fmul(self.builder.fmul(x, rest), density)
