"""Specs of attention and of what its gradients are made of.

Arrays are q (N, L, H, E), k (N, S, G, E), v (N, S, G, Ev): sequences with their heads side by side,
as projections make them; H is a multiple of G, and head h of q reads head h // (H / G) of k and v.
A mask is the last input, if there is one: (N or 1, H or 1, L or 1, S or 1), booleans (True: seen)
or floats that are added to the scores. With `causal`, query i sees keys 0 to i.

- attention: softmax(scale q k^T + mask) v, (N, L, H, Ev); 0 where a query sees no key.
- attention_sums: the logarithms of the sums of exponentials of the scores, (N, L, H); infinity
  where a query sees no key, so that exp(score - sum) is its weight, 0, all the same.
- attention_query_grad, attention_key_grad, attention_value_grad: from these sums, `delta` (the sum
  over Ev of cotangent times result) and the cotangent g. With weights p and d = p (g v^T - delta)
  scale they are d k, d^T q and p^T g.

Formulas: Dao et al., "FlashAttention" (2022, arXiv:2205.14135), appendix B. No array of the size of
the scores is kept; kernels make the two results of the first kind in one pass, the three gradients
in another one. Gradients of gradients are made of matrix products.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gpubp.core import Array, ArrayType, Kind, OpSpec, Typed, bind, describe
from gpubp.errors import DTypeError, ShapeError
from gpubp.ops import attention_reference as reference
from gpubp.ops.attention_pullback import (
    Cotangents,
    Traced,
    key_vjp,
    query_vjp,
    sums_vjp,
    value_vjp,
)
from gpubp.ops.elementwise import multiply
from gpubp.ops.reduce import sum
from gpubp.ops.spec import BOOL, register, require_float


class Sizes(NamedTuple):
    """Of an attention: batch, queries, keys, heads, heads of keys, features, those of values."""

    batch: int
    length: int
    keys: int
    heads: int
    groups: int
    size: int
    value_size: int


def sizes_of(q: Typed, k: Typed, v: Typed) -> Sizes:
    """The sizes of one with these inputs."""
    batch, length, heads, size = q.shape
    return Sizes(batch, length, k.shape[1], heads, k.shape[2], size, v.shape[3])


def _checked(name: str, q: Typed, k: Typed, v: Typed, mask: tuple[Typed, ...]) -> Sizes:
    require_float(name, q, k, v)
    given = f"{describe(q)}, {describe(k)} and {describe(v)}"
    if not len(q.shape) == len(k.shape) == len(v.shape) == 4:
        raise ShapeError(f"{name}: expected four axes of q, k and v, got {given}.")
    n = sizes_of(q, k, v)
    fits = k.shape == (n.batch, n.keys, n.groups, n.size) and v.shape[:3] == k.shape[:3]
    if not fits or n.groups == 0 or n.heads % n.groups:
        raise ShapeError(f"{name}: q, k and v do not fit each other: {given}.")
    for m in mask:
        if m.dtype not in (BOOL, q.dtype):
            raise DTypeError(f"{name}: a mask {describe(m)} beside {describe(q)}.")
        wanted = (n.batch, n.heads, n.length, n.keys)
        if len(m.shape) != 4 or any(a not in (1, b) for a, b in zip(m.shape, wanted, strict=True)):
            raise ShapeError(f"{name}: a mask {describe(m)} does not spread to {wanted}.")
    return n


def _infer(q: Typed, k: Typed, v: Typed, *mask: Typed, scale: float, causal: bool) -> ArrayType:
    n = _checked("attention", q, k, v, mask)
    return ArrayType((n.batch, n.length, n.heads, n.value_size), q.dtype)


def _sums_infer(
    q: Typed, k: Typed, v: Typed, *mask: Typed, scale: float, causal: bool
) -> ArrayType:
    n = _checked("attention_sums", q, k, v, mask)
    return ArrayType((n.batch, n.length, n.heads), q.dtype)


def _grad_infer(at: int) -> Any:
    """The type of the gradient by input `at`."""

    def infer(*inputs: Typed, scale: float, causal: bool) -> ArrayType:
        q, k, v, sums, delta, g, *mask = inputs
        n = _checked("attention_grad", q, k, v, tuple(mask))
        require_float("attention_grad", q, sums, delta, g)
        rows = (n.batch, n.length, n.heads)
        if not (sums.shape == delta.shape == rows and g.shape == (*rows, n.value_size)):
            raise ShapeError(
                f"attention_grad: sums {describe(sums)}, delta {describe(delta)} and cotangent "
                f"{describe(g)} do not fit {describe(q)}, {describe(v)}."
            )
        return ArrayType(inputs[at].shape, q.dtype)

    return infer


def _vjp(
    g: Array, y: Array, q: Array, k: Array, v: Array, *mask: Array, **attrs: Any
) -> Cotangents:
    sums: Array = bind(ATTENTION_SUMS, q, k, v, *mask, **attrs)
    inputs = (q, k, v, sums, sum(multiply(g, y), -1), g, *mask)
    grads: Cotangents = [bind(spec, *inputs, **attrs) for spec in GRADIENTS]
    return [*grads, *[Traced(inputs, **attrs).to_mask() for _ in mask]]


def _share(length: int, keys: int, causal: bool) -> float:
    """Pairs of a query and a key that it may see, by position."""
    if not causal:
        return float(length * keys)
    seen = min(length, keys)
    return seen * (seen + 1) / 2 + float(max(length - keys, 0) * keys)


def _flops(products: float) -> Any:
    """Arithmetic of so many products of queries and keys, or weights and values."""

    def flops(
        out: Typed, q: Typed, k: Typed, v: Typed, *_: Typed, causal: bool, **__: Any
    ) -> float:
        n = sizes_of(q, k, v)
        pairs = n.batch * n.heads * _share(n.length, n.keys, causal)
        return pairs * products * (n.size + n.value_size) + 5.0 * pairs

    return flops


def _spec(name: str, infer: Any, reference: Any, vjp: Any, products: float, **more: Any) -> OpSpec:
    return register(
        OpSpec(name, Kind.ROWWISE, infer, reference, vjp, flops=_flops(products), **more)
    )


ATTENTION = _spec("attention", _infer, reference.attended, _vjp, 2.0, strided=(0, 1, 2, 3))
ATTENTION_SUMS = _spec(
    "attention_sums",
    _sums_infer,
    reference.log_sums,
    sums_vjp,
    1.0,
    kernel="attention",
    joins=ATTENTION,
    strided=(0, 1, 2, 3),
)
_OF_GRADIENTS: dict[str, Any] = {"kernel": "attention_grad", "strided": (0, 1, 2, 5, 6)}
QUERY_GRAD = _spec(
    "attention_query_grad", _grad_infer(0), reference.query_grad, query_vjp, 3.0, **_OF_GRADIENTS
)
KEY_GRAD = _spec(
    "attention_key_grad",
    _grad_infer(1),
    reference.key_grad,
    key_vjp,
    1.0,
    joins=QUERY_GRAD,
    **_OF_GRADIENTS,
)
VALUE_GRAD = _spec(
    "attention_value_grad",
    _grad_infer(2),
    reference.value_grad,
    value_vjp,
    1.0,
    joins=QUERY_GRAD,
    **_OF_GRADIENTS,
)
GRADIENTS = (QUERY_GRAD, KEY_GRAD, VALUE_GRAD)
