"""Decompositions of small matrices, in batches: NumPy's LAPACK as black boxes, with gradients.

Each is one op whose results lie side by side in a row, so that LAPACK is called once. Gradients are
those that torch.linalg documents (M. Giles 2008; Townsend 2016; Golub & Pereyra 1973), made of
`gp.ops`, so that they can be differentiated again. Where singular values or eigenvalues are equal,
those of vectors are not finite: the vectors are not determined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.arguments import is_number, shown, truth
from gpubp.core import describe
from gpubp.errors import DataError, GradientError, ShapeError, unknown_name
from gpubp.ops import logic
from gpubp.ops.constant import constant
from gpubp.ops.custom import custom_op
from gpubp.ops.elementwise import add, divide, multiply, negative, square, subtract
from gpubp.ops.index import concat
from gpubp.ops.linalg import matmul
from gpubp.ops.matrices import _SOLVE, _guarded, _square, _triangle, _turned
from gpubp.ops.shape import expand_dims, reshape
from gpubp.ops.slicing import strided_slice
from gpubp.ops.spec import float_limits, promote

_Shapes = Sequence[tuple[int, ...]]


def _packed(name: str, fn: Callable[..., Any], shapes: Callable[..., _Shapes], vjp: Any) -> Any:
    """A function with several results; `vjp`: (cotangents, results, x, **attrs) -> that of x."""

    def forward(x: Any, **attrs: Any) -> Any:
        parts = _guarded(name, lambda x: fn(x, **attrs), x)
        batch = x.shape[:-2]  # which may be empty
        rows = [p.reshape(*batch, math.prod(p.shape[len(batch) :])) for p in parts]
        return np.concatenate(rows, -1).astype(x.dtype)

    def infer(x: Any, **attrs: Any) -> tuple[tuple[int, ...], Any]:
        size = sum(math.prod(shape) for shape in shapes(*x.shape[-2:], **attrs))
        return (*x.shape[:-2], size), x.dtype

    def back(g: Any, y: Any, x: Any, **attrs: Any) -> Any:
        sizes = shapes(*x.shape[-2:], **attrs)
        return (vjp(_unpacked(g, sizes), _unpacked(y, sizes), x, **attrs),)

    op = custom_op(name, forward, back, infer)
    return lambda x, **attrs: _unpacked(op(x, **attrs), shapes(*x.shape[-2:], **attrs))


def _unpacked(row: Any, shapes: _Shapes) -> list[Any]:
    found, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        key = [*[slice(None)] * (len(row.shape) - 1), slice(start, stop)]
        found.append(reshape(strided_slice(row, key), (*row.shape[:-1], *shape)))
        start = stop
    return found


def _eye(n: int, like: Any) -> Any:
    return constant(np.eye(n, dtype=like.dtype), like)


def _diagonal(values: Any) -> Any:
    """(..., n) as diagonal matrices."""
    return multiply(expand_dims(values, -1), _eye(values.shape[-1], values))


def _apart(values: Any) -> Any:
    """values[j] - values[i], and 1 on the diagonal."""
    difference = subtract(expand_dims(values, -2), expand_dims(values, -1))
    return add(difference, _eye(values.shape[-1], values))


def _matrices(name: str, x: Any) -> Any:
    (x,) = promote(x, floating=True)
    if len(x.shape) < 2 or not x.shape[-1] or not x.shape[-2]:
        raise ShapeError(f"{name}: expected matrices (..., m, n), got {describe(x)}.")
    return x


def _eigh_vjp(gs: Any, ys: Any, x: Any) -> Any:
    (g_values, g_vectors), (values, vectors) = gs, ys
    inner = divide(matmul(_turned(vectors), g_vectors), _apart(values))
    inner = logic.where(constant(np.eye(x.shape[-1], dtype=bool), x), _diagonal(g_values), inner)
    found = matmul(matmul(vectors, inner), _turned(vectors))
    return multiply(add(found, _turned(found)), 0.5)


_EIGH = _packed(
    "eigh",
    lambda x: np.linalg.eigh((x + np.swapaxes(x, -1, -2)) / 2),
    lambda n, _: [(n,), (n, n)],
    _eigh_vjp,
)


def eigh(x: Any) -> tuple[Any, Any]:
    """Eigenvalues, rising, and eigenvectors, as columns, of (x + x^T) / 2; see torch.linalg.eigh.

    Args:
        x: (..., n, n).

    Returns:
        (..., n) and (..., n, n).
    """
    x = _matrices("eigh", _square("eigh", x))
    values, vectors = _EIGH(x)
    return values, vectors


def _svd_vjp(gs: Any, ys: Any, x: Any, *, full: bool) -> Any:
    (g_u, g_s, g_v), (u, s, v) = gs, ys  # v: its rows are the vectors
    m, n = x.shape[-2:]
    if full and m != n:
        raise GradientError(
            "svd: with full_matrices=True vectors of matrices that are not square are not "
            "determined, and have no gradient. Use full_matrices=False."
        )
    g_v, v = _turned(g_v), _turned(v)
    squares = _apart(square(s))
    parts = []
    for vectors, slope in ((u, g_u), (v, g_v)):
        inner = matmul(_turned(vectors), slope)
        parts.append(divide(subtract(inner, _turned(inner)), squares))
    s_row, s_column = expand_dims(s, -2), expand_dims(s, -1)
    inner = add(multiply(parts[0], s_row), multiply(s_column, parts[1]))
    found = matmul(matmul(u, add(inner, _diagonal(g_s))), _turned(v))
    if m > n:
        rest = subtract(g_u, matmul(u, matmul(_turned(u), g_u)))
        found = add(found, matmul(divide(rest, s_row), _turned(v)))
    if n > m:
        rest = subtract(g_v, matmul(v, matmul(_turned(v), g_v)))
        found = add(found, matmul(u, _turned(divide(rest, s_row))))
    return found


def _svd_shapes(m: int, n: int, *, full: bool) -> _Shapes:
    k = min(m, n)
    return [(m, m if full else k), (k,), (n if full else k, n)]


_SVD = _packed("svd", lambda x, full: np.linalg.svd(x, full), _svd_shapes, _svd_vjp)


def svd(x: Any, full_matrices: bool = True) -> tuple[Any, Any, Any]:
    """U, singular values (falling) and V^T of x = U diag(S) V^T; see torch.linalg.svd.

    Args:
        x: (..., m, n).
        full_matrices: U and V are square; else they have min(m, n) vectors.

    Raises:
        GradientError: (of gradients) full matrices of one that is not square.
    """
    x = _matrices("svd", x)
    u, s, v = _SVD(x, full=truth("svd", "full_matrices", full_matrices))
    return u, s, v


def _qr_vjp(gs: Any, ys: Any, x: Any) -> Any:
    (g_q, g_r), (q, r) = gs, ys
    m, n = x.shape[-2:]
    if m >= n:
        return _tall_qr(g_q, g_r, q, r)
    # x = [a | b] with a = q u square, and b = q v.
    every = [slice(None)] * (len(x.shape) - 1)
    first, last = [*every, slice(0, m)], [*every, slice(m, n)]
    g_u, g_v = strided_slice(g_r, first), strided_slice(g_r, last)
    g_q = add(g_q, matmul(strided_slice(x, last), _turned(g_v)))
    to_a = _tall_qr(g_q, g_u, q, strided_slice(r, first))
    return concat([to_a, matmul(q, g_v)], len(x.shape) - 1)


def _tall_qr(g_q: Any, g_r: Any, q: Any, r: Any) -> Any:
    """(g_q + q (M + M^T - diag M)) r^-T, where M = triu(g_r r^T - q^T g_q)."""
    inner = subtract(matmul(g_r, _turned(r)), matmul(_turned(q), g_q))
    inner = _triangle(inner, upper=True)
    both = add(inner, _turned(_triangle(inner, upper=True, diagonal=1)))
    total = add(g_q, matmul(q, both))
    return _turned(_SOLVE(r, _turned(total)))


def _qr_shapes(m: int, n: int) -> _Shapes:
    return [(m, min(m, n)), (min(m, n), n)]


_QR = _packed("qr", lambda x: np.linalg.qr(x), _qr_shapes, _qr_vjp)


def qr(x: Any, mode: str = "reduced") -> Any:
    """Q with orthonormal columns and upper triangular R of x = Q R; see torch.linalg.qr.

    Args:
        x: (..., m, n).
        mode: "reduced"; "r": R alone.
    """
    if not isinstance(mode, str) or mode not in ("reduced", "r"):
        raise unknown_name("mode of qr", mode, ["reduced", "r"])
    q, r = _QR(_matrices("qr", x))
    return r if mode == "r" else (q, r)


def _pinv_vjp(g: Any, y: Any, x: Any, *, rcond: float) -> Any:
    """The adjoint of dP = -P dA P + P P^T dA^T (1 - A P) + (1 - P A) dA^T P^T P."""
    turned, back = _turned(y), _turned(g)
    found = negative(matmul(matmul(turned, g), turned))
    one = matmul(matmul(back, y), turned)
    found = add(found, subtract(one, matmul(x, matmul(y, one))))
    two = matmul(turned, matmul(y, back))
    return (add(found, subtract(two, matmul(matmul(two, y), x))),)


_PINV = custom_op(
    "pinv",
    lambda x, rcond: _guarded("pinv", lambda x: np.linalg.pinv(x, rcond), x).astype(x.dtype),
    _pinv_vjp,
    infer=lambda x, rcond: ((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype),
)


def pinv(x: Any, rcond: float | None = None) -> Any:
    """Moore-Penrose pseudoinverses of (..., m, n); see torch.linalg.pinv.

    Args:
        x: (..., m, n).
        rcond: singular values up to this share of the largest count as 0; None: max(m, n) times
            the dtype's epsilon.

    Raises:
        DataError: `rcond` is no number, negative or not finite. ShapeError: `x` has no matrices.
    """
    x = _matrices("pinv", x)
    if rcond is None:
        rcond = max(x.shape[-2:]) * float(float_limits(x).eps)
    elif not is_number(rcond) or not 0 <= rcond < math.inf:
        raise DataError(f"pinv: rcond must be finite and not negative, got {shown(rcond)}.")
    return _PINV(x, rcond=float(rcond))
