"""Linear algebra of small matrices, in batches: NumPy's LAPACK as black boxes, with gradients.

Gradients are those of M. Giles, "An extended collection of matrix derivative results for forward
and reverse mode algorithmic differentiation" (2008), made of the same functions, so that they can
be differentiated again. In a program each is called on the host, on one worker.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.ops import logic
from gpubp.ops.constant import constant
from gpubp.ops.custom import custom_op
from gpubp.ops.elementwise import add, multiply, negative
from gpubp.ops.linalg import matmul
from gpubp.ops.shape import broadcast_to, expand_dims, reshape, squeeze, swapaxes
from gpubp.ops.spec import promote


def _guarded(name: str, fn: Any, *arrays: Any) -> Any:
    try:
        return fn(*arrays)
    except np.linalg.LinAlgError as err:
        raise DataError(f"{name}: {err}.") from None


def _turned(x: Any) -> Any:
    return swapaxes(x, -1, -2)


def _square(name: str, x: Any) -> Any:
    (x,) = promote(x, floating=True)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: expected square matrices (..., n, n), got {describe(x)}.")
    return x


def _inv_vjp(g: Any, y: Any, x: Any) -> Any:
    return (negative(matmul(matmul(_turned(y), g), _turned(y))),)


_INV = custom_op("inv", lambda x: _guarded("inv", np.linalg.inv, x), _inv_vjp)


def inv(x: Any) -> Any:
    """Inverses of (..., n, n). DataError where one is singular."""
    return _INV(_square("inv", x))


def _solve_vjp(g: Any, y: Any, a: Any, b: Any) -> Any:
    back = _SOLVE(_turned(a), g)
    return negative(matmul(back, _turned(y))), back


_SOLVE = custom_op(
    "solve",
    lambda a, b: _guarded("solve", np.linalg.solve, a, b),
    _solve_vjp,
    infer=lambda a, b: (b.shape, b.dtype),
)


def solve(a: Any, b: Any) -> Any:
    """x of a x = b, as torch.linalg.solve.

    Args:
        a: (..., n, n).
        b: (..., n, k); or (..., n), if it is a vector or has the batch of `a`.

    Raises:
        DataError: a matrix is singular.
        ShapeError: shapes do not fit.
    """
    a, b = promote(_square("solve", a), b, floating=True)
    vector = len(b.shape) == 1 or (
        len(a.shape) - 1 == len(b.shape) and tuple(b.shape) == tuple(a.shape[:-1])
    )
    b = expand_dims(b, -1) if vector else b
    if len(b.shape) < 2 or b.shape[-2] != a.shape[-1]:
        raise ShapeError(f"solve: {describe(a)} and {describe(b)} do not fit.")
    found = _solved("solve", a, b)
    return squeeze(found, -1) if vector else found


def _solved(name: str, a: Any, b: Any) -> Any:
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"{name}: {describe(a)} and {describe(b)} do not fit.") from None
    wide = broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:]))
    return _SOLVE(*wide)


def _triangle(x: Any, upper: bool, diagonal: int = 0) -> Any:
    n = x.shape[-1]
    mask = np.tri(n, k=-diagonal, dtype=bool)
    return logic.where(constant(mask.T if upper else mask, x), x, 0)


@checked
def solve_triangular(
    a: Any, b: Any, *, upper: bool = False, left: bool = True, unitriangular: bool = False
) -> Any:
    """x of a x = b (or x a = b), where one triangle of `a` is read; see torch.linalg.

    Args:
        a: (..., n, n).
        b: (..., n, k), or (..., k, n) if not left.
        upper: read the upper triangle.
        left: `a` stands on the left.
        unitriangular: its diagonal is taken as 1.
    """
    a, b = promote(_square("solve_triangular", a), b, floating=True)
    part = _triangle(a, upper, 1 if unitriangular else 0)
    if unitriangular:
        part = add(part, constant(np.eye(a.shape[-1], dtype=a.dtype), a))
    side = b if left else _turned(b)
    if len(b.shape) < 2 or side.shape[-2] != a.shape[-1]:
        raise ShapeError(f"solve_triangular: {describe(a)} and {describe(b)} do not fit.")
    found = _solved("solve_triangular", part if left else _turned(part), side)
    return found if left else _turned(found)


def _cholesky_vjp(g: Any, y: Any, x: Any) -> Any:
    """S = L^-T Phi(L^T g) L^-1, symmetrised; Phi: the lower triangle with half of the diagonal."""
    n = x.shape[-1]
    half = constant((np.tri(n) - 0.5 * np.eye(n)).astype(x.dtype), x)
    phi = multiply(matmul(_turned(y), _triangle(g, False)), half)
    right = _turned(_SOLVE(_turned(y), _turned(phi)))
    found = _SOLVE(_turned(y), right)
    return (multiply(add(found, _turned(found)), 0.5),)


def _factor(x: Any) -> Any:
    return _guarded("cholesky", np.linalg.cholesky, (x + np.swapaxes(x, -1, -2)) / 2)


_CHOLESKY = custom_op("cholesky", _factor, _cholesky_vjp)


@checked
def cholesky(x: Any, *, upper: bool = False) -> Any:
    """Lower L (or upper) of L L^T = (x + x^T) / 2. DataError if that is not positive definite."""
    found = _CHOLESKY(_square("cholesky", x))
    return _turned(found) if upper else found


def _log_vjp(g: Any, y: Any, x: Any) -> Any:
    return (multiply(reshape(g, (*g.shape, 1, 1)), _turned(_INV(x))),)


_LOGDET = custom_op(
    "logabsdet",
    lambda x: np.linalg.slogdet(x)[1].astype(x.dtype),
    _log_vjp,
    infer=lambda x: (x.shape[:-2], x.dtype),
)
_SIGN = custom_op(
    "det_sign",
    lambda x: np.linalg.slogdet(x)[0].astype(x.dtype),
    lambda g, y, x: (None,),
    infer=lambda x: (x.shape[:-2], x.dtype),
)


def _cofactor(x: Any) -> Any:
    """Matrices of cofactors from the singular values: right where x is singular, too."""
    u, s, v = np.linalg.svd(x)
    n = s.shape[-1]
    others = np.where(np.eye(n, dtype=bool), 1.0, s[..., None, :]).prod(-1)
    sign = np.linalg.det(u) * np.linalg.det(v)
    return (sign[..., None, None] * ((u * others[..., None, :]) @ v)).astype(x.dtype)


def _cofactor_vjp(g: Any, y: Any, x: Any) -> Any:
    """Of det(x) x^-T, for x that is not singular."""
    back = _turned(_INV(x))
    inner = multiply(g, back).sum(axis=(-1, -2), keepdims=True)
    return (multiply(y, inner) - matmul(matmul(y, _turned(g)), back),)


_COFACTOR = custom_op("cofactors", _cofactor, _cofactor_vjp)
_DET = custom_op(
    "det",
    lambda x: np.linalg.det(x).astype(x.dtype),
    lambda g, y, x: (multiply(reshape(g, (*g.shape, 1, 1)), _COFACTOR(x)),),
    infer=lambda x: (x.shape[:-2], x.dtype),
)


def det(x: Any) -> Any:
    """Determinants of (..., n, n). The gradient is right where x is singular; its own is not."""
    return _DET(_square("det", x))


def slogdet(x: Any) -> tuple[Any, Any]:
    """(sign, logarithm of the absolute value) of determinants."""
    x = _square("slogdet", x)
    return _SIGN(x), _LOGDET(x)


def matrix_power(x: Any, n: int) -> Any:
    """Powers of (..., m, m) by repeated squaring; of the inverse, if n is negative."""
    x = _square("matrix_power", x)
    try:
        count = operator.index(n)
    except TypeError:
        raise ArgumentError(f"matrix_power: n is {shown(n)}, expected a whole number.") from None
    base = inv(x) if count < 0 else x
    count = abs(count)
    found = None
    while count:
        if count & 1:
            found = base if found is None else matmul(found, base)
        count >>= 1
        base = matmul(base, base) if count else base
    if found is None:
        eye = constant(np.eye(x.shape[-1], dtype=x.dtype), x)
        return logic.copy(broadcast_to(eye, x.shape))
    return found
