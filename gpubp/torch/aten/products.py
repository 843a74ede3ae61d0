"""Rules of matrix products, linear algebra and distances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.nn import functional
from gpubp.torch.rules import rule, same

same(
    {
        "matmul": ops.matmul,
        "mm": ops.matmul,
        "bmm": ops.matmul,
        "mv": ops.matmul,
        "linalg_matmul": ops.matmul,
        "dot": ops.dot,
        "vdot": ops.dot,
        "inner": ops.inner,
        "outer": ops.outer,
        "ger": ops.outer,
        "kron": ops.kron,
        "linear": ops.linear,
        "bilinear": functional.bilinear,
        "cosine_similarity": functional.cosine_similarity,
        "pairwise_distance": functional.pairwise_distance,
        "pdist": ops.pdist,
        "linalg_inv": ops.inv,
        "inverse": ops.inv,
        "linalg_det": ops.det,
        "det": ops.det,
        "linalg_pinv": ops.pinv,
        "linalg_matrix_power": ops.matrix_power,
        "matrix_power": ops.matrix_power,
    }
)


@rule("einsum")
def einsum(equation: str, tensors: Sequence[Any], path: Any = None) -> Any:
    """Sums of products by letters."""
    return ops.einsum(equation, *tensors)


@rule("tensordot")
def tensordot(a: Any, b: Any, dims_a: Sequence[int], dims_b: Sequence[int]) -> Any:
    """Sums of products over these axes."""
    return ops.tensordot(a, b, (tuple(dims_a), tuple(dims_b)))


def _scaled(x: Any, by: Any) -> Any:
    return x if by == 1 else ops.multiply(x, by)


@rule("addmm", "addmv")
def addmm(c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta c + alpha a b."""
    return ops.add(_scaled(c, beta), _scaled(ops.matmul(a, b), alpha))


@rule("baddbmm")
def baddbmm(c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta c + alpha a b, matrix by matrix."""
    product = _scaled(ops.matmul(a, b), alpha)
    return product if beta == 0 else ops.add(_scaled(c, beta), product)


@rule("addr")
def addr(c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    """beta c + alpha a b^T."""
    return ops.add(_scaled(c, beta), _scaled(ops.outer(a, b), alpha))


@rule("linalg_multi_dot", "chain_matmul")
def multi_dot(tensors: Sequence[Any]) -> Any:
    """A product of several."""
    product = tensors[0]
    for other in tensors[1:]:
        product = ops.matmul(product, other)
    return product


@rule("cdist")
def cdist(a: Any, b: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """Distances of all pairs of rows."""
    return ops.cdist(a, b, p)


@rule("linalg_cholesky", "cholesky")
def cholesky(x: Any, upper: bool = False) -> Any:
    """The triangular root."""
    return ops.cholesky(x, upper=bool(upper))


@rule("linalg_solve")
def solve(a: Any, b: Any, left: bool = True) -> Any:
    """x in a x = b."""
    return ops.solve(a, b)


@rule("linalg_solve_triangular")
def solve_triangular(
    a: Any, b: Any, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """x in a x = b, of a triangular a."""
    return ops.solve_triangular(a, b, upper=upper, left=left, unitriangular=unitriangular)


@rule("linalg_qr")
def qr(x: Any, mode: str = "reduced") -> Any:
    """An orthogonal and a triangular factor."""
    return tuple(ops.qr(x, mode))


@rule("linalg_eigh")
def eigh(x: Any, uplo: str = "L") -> Any:
    """Eigenvalues and vectors of a symmetric matrix."""
    return tuple(ops.eigh(x))


@rule("linalg_slogdet", "slogdet")
def slogdet(x: Any) -> Any:
    """Sign and logarithm of the determinant."""
    return tuple(ops.slogdet(x))
