"""PyTorch's ops of distances, counts, decompositions, bags and new arrays, for `op_database`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import op_adapters as adapt

from gpubp import nn, ops
from gpubp.nn import functional

F = "nn.functional."
WHOLE = "floats of whole numbers"
STATIC = "a size that follows from the numbers: shapes are static"


def cdist(x: Any, y: Any, p: float = 2.0, compute_mode: str = "") -> Any:
    """torch's other ways to the same numbers are passed over."""
    return ops.cdist(x, y, p)


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    if weights is not None:
        adapt.refuse("sums of whole weights as floats")
    if isinstance(x, np.ndarray) and x.size and int(x.max()) >= minlength:
        adapt.refuse(STATIC)
    return ops.bincount(x, None, minlength)


def places(
    rising: Any,
    values: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    adapt.no("places as int32", out_int32)
    adapt.no("a sorter beside the sequence", sorter is not None)
    if not hasattr(values, "shape"):
        values = np.asarray(values, rising.dtype)
    return ops.searchsorted(rising, values, right or side == "right")


def bucketize(x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    adapt.no("places as int32", out_int32)
    return ops.bucketize(x, boundaries, right)


def diagonal(x: Any, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    return ops.diagonal(x, offset, dim1, dim2)


def qr(x: Any, mode: str = "reduced") -> Any:
    adapt.no("a complete basis", mode == "complete")
    if mode == "r":
        adapt.refuse("an empty array in the place of Q")
    return tuple(ops.qr(x))


def without_draws(fn: Callable[..., Any], trains: bool = True) -> Callable[..., Any]:
    """Where nothing is drawn; `trains`: what is told by default."""

    def adapted(x: Any, *args: Any, training: bool = trains, **kwargs: Any) -> Any:
        kwargs.pop("inplace", None)
        adapt.no("other random numbers", training and kwargs.get("p") not in (0.0, 1.0))
        return fn(x, *args, training=training, **kwargs)

    return adapted


def bags(weight: Any, indices: Any, **options: Any) -> Any:
    return functional.embedding_bag(indices, weight, **options)


def triplets(x: Any, positive: Any, negative: Any, **options: Any) -> Any:
    if options.pop("distance_function", None) is not None:
        options["distance_function"] = nn.PairwiseDistance()
    return functional.triplet_margin_with_distance_loss(x, positive, negative, **options)


def linear_cross_entropy(*args: Any, **options: Any) -> Any:
    adapt.no("how torch cuts the work in pieces", options.pop("options", None))
    return functional.linear_cross_entropy(*args, **options)


def normalized(x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    if x.ndim and x.shape[dim] == 1:
        adapt.refuse("norms of single numbers, whose gradient is rounding")
    return functional.normalize(x, p, dim, eps)


def steps(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(*args: Any, dtype: Any = None, **rest: Any) -> Any:
        whole = dtype is not None and "int" in adapt.dtype_name(dtype)
        adapt.no("whole steps, which are rounded before they are added up", whole)
        return made(fn)(*args, dtype=dtype, **rest)

    return adapted


def made(fn: Callable[..., Any]) -> Callable[..., Any]:
    """New arrays: torch also says where they are, and whether they are differentiated."""

    def adapted(*args: Any, dtype: Any = None, device: Any = None, **rest: Any) -> Any:
        rest.pop("requires_grad", None)
        given = {} if dtype is None else {"dtype": adapt.dtype_name(dtype)}
        return fn(*args, **given, **rest)

    return adapted


def pairs(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Places are int64 here."""

    def adapted(*args: Any, dtype: Any = None, device: Any = None) -> Any:
        adapt.no("places as int32", dtype is not None and adapt.dtype_name(dtype) != "int64")
        return fn(*args)

    return adapted


# Ops that gpubp has, and why they are not compared with these inputs.
_SIGNS = "vectors are determined up to their signs: see test_decompositions.py"
_SIZES = "a size that follows from the numbers: outside of traces only"
_DRAWS = "other random numbers"
LEFT_OUT = {
    **dict.fromkeys(("linalg.svd", "svd", "linalg.eigh"), _SIGNS),
    **dict.fromkeys(("masked_select", "nonzero", "argwhere", "unique"), _SIZES),
    **dict.fromkeys(("normal", "uniform", "randn"), _DRAWS),
    F + "ctc_loss": "torch's gradient by logarithms is not their derivative: test_torch_ctc.py",
    "arange": "inputs without a stop, or of booleans",
    "linalg.pinv": "torch's tolerances are two numbers; pinverse has the same ops",
    "qr": "torch's old signature; linalg.qr has the same ops",
    "norm": "torch's old signature; linalg.vector_norm has the same ops",
}
CHECKED = {
    **dict.fromkeys(
        ("linalg.qr", "linalg.svdvals", "pinverse"), ("expected matrices", "matrices of nothing")
    ),
    **dict.fromkeys(
        (F + "cosine_similarity", F + "normalize"),
        ("out of range for 0", "vectors without an axis"),
    ),
    F + "feature_alpha_dropout/without_train": ("at least 2 axes", "features without axes"),
    F + "linear_cross_entropy": ("expected x (..., in)", "weights of more than two axes"),
    F + "multilabel_margin_loss": ("expected (N, C)", "scores without classes"),
}
TABLE: dict[str, Callable[..., Any]] = {
    "cdist": cdist,
    F + "pdist": ops.pdist,
    "bincount": bincount,
    "searchsorted": places,
    "bucketize": bucketize,
    "histc": ops.histc,
    "linalg.diagonal": diagonal,
    "linalg.qr": qr,
    "linalg.svdvals": lambda x: ops.svd(x, False)[1],
    "pinverse": ops.pinv,
    "tensor_split": lambda x, parts, dim=0: tuple(ops.tensor_split(x, _static(parts), dim)),
    F + "rrelu": without_draws(ops.rrelu, False),
    F + "dropout2d": without_draws(functional.dropout2d),
    F + "dropout3d": without_draws(functional.dropout3d),
    F + "alpha_dropout": without_draws(functional.alpha_dropout, False),
    F + "feature_alpha_dropout/without_train": without_draws(
        functional.feature_alpha_dropout, False
    ),
    F + "cosine_similarity": functional.cosine_similarity,
    F + "pairwise_distance": adapt.floating(functional.pairwise_distance, WHOLE),
    F + "normalize": normalized,
    F + "embedding_bag": bags,
    F + "triplet_margin_loss": functional.triplet_margin_loss,
    F + "triplet_margin_with_distance_loss": triplets,
    F + "multilabel_margin_loss": functional.multilabel_margin_loss,
    F + "linear_cross_entropy": linear_cross_entropy,
    **{n: made(getattr(ops, n)) for n in ("eye", "full", "ones", "zeros")},
    **{n: steps(getattr(ops, n)) for n in ("linspace", "logspace")},
    **{n: pairs(getattr(ops, n)) for n in ("tril_indices", "triu_indices")},
}


def _static(parts: Any) -> Any:
    return parts.tolist() if isinstance(parts, np.ndarray) else parts
