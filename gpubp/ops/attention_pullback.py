"""Attention in ops that exist: how gradients of its gradients, and of masks, are made.

Names are those of `attention_specs`: weights p, and d, the gradient by scaled products.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.core import Array
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import add, exp, multiply, subtract
from gpubp.ops.linalg import matmul
from gpubp.ops.logic import logical_and, where
from gpubp.ops.reduce import sum
from gpubp.ops.shape import expand_dims, reshape, swapaxes, transpose
from gpubp.ops.spec import BOOL, unbroadcast

Cotangents = list[Array | None]


def sums_vjp(
    c: Array, y: Array, q: Array, k: Array, v: Array, *mask: Array, **attrs: Any
) -> Cotangents:
    """Of the logarithms of sums."""
    traced = Traced((q, k, v, y, y, v, *mask), **attrs)
    traced.from_scores(multiply(expand_dims(traced.queries(c), -1), traced.weights()))
    to_q, to_k, *_, to_mask = traced.cotangents()
    return [to_q, to_k, None, *[to_mask for _ in mask]]


def query_vjp(c: Array, y: Array, *inputs: Array, **attrs: Any) -> Cotangents:
    """Of the gradient by queries."""
    traced = Traced(inputs, **attrs)
    c = traced.queries(c)
    traced.give("k", matmul(swapaxes(traced.d(), -1, -2), c))
    traced.from_d(matmul(c, swapaxes(traced.k, -1, -2)))
    return traced.cotangents()[: len(inputs)]


def key_vjp(c: Array, y: Array, *inputs: Array, **attrs: Any) -> Cotangents:
    """Of the gradient by keys."""
    traced = Traced(inputs, **attrs)
    c = traced.keys(c)
    traced.give("q", matmul(traced.d(), c))
    traced.from_d(matmul(traced.q, swapaxes(c, -1, -2)))
    return traced.cotangents()[: len(inputs)]


def value_vjp(c: Array, y: Array, *inputs: Array, **attrs: Any) -> Cotangents:
    """Of the gradient by values."""
    traced = Traced(inputs, **attrs)
    c, p = traced.keys(c), traced.weights()
    traced.give("g", matmul(p, c))
    traced.from_scores(multiply(matmul(traced.g, swapaxes(c, -1, -2)), p))
    return traced.cotangents()[: len(inputs)]


class Traced:
    """The weights and what they depend on in ops: cotangents of the gradients' inputs.

    Args:
        inputs: of a gradient.
        scale, causal: its attributes.
    """

    def __init__(self, inputs: tuple[Array, ...], scale: float, causal: bool) -> None:
        self.inputs, self.scale, self.causal = inputs, scale, causal
        self.groups = inputs[1].shape[2]
        q, k, v, sums, delta, g, *mask = inputs
        self.q, self.g = self.queries(q), self.queries(g)
        self.k, self.v = self.keys(k), self.keys(v)
        self.sums = expand_dims(self.queries(sums), -1)
        self.delta = expand_dims(self.queries(delta), -1)
        self.mask = mask[0] if mask else None
        self.found: dict[str, Array] = {}

    def queries(self, x: Array) -> Array:
        """(N, L, H, ...) as (N, G, H / G, L, ...)."""
        batch, length, heads, *rest = x.shape
        split = reshape(x, (batch, length, self.groups, heads // self.groups, *rest))
        moved: Array = transpose(split, (0, 2, 3, 1, *range(4, split.ndim)))
        return moved

    def keys(self, x: Array) -> Array:
        """(N, S, G, E) as (N, G, 1, S, E)."""
        moved: Array = expand_dims(transpose(x, (0, 2, 1, 3)), 2)
        return moved

    def weights(self) -> Array:
        """The weights p."""
        scores = multiply(matmul(self.q, swapaxes(self.k, -1, -2)), self.scale)
        seen = None
        if self.mask is not None:
            spread = self._spread(self.mask)
            if self.mask.dtype == BOOL:
                seen = spread
            else:
                scores = add(scores, spread)
        if self.causal:
            below = constant(np.tri(*scores.shape[-2:], dtype=bool), scores)
            seen = below if seen is None else logical_and(seen, below)
        p: Array = exp(subtract(scores, self.sums))
        return p if seen is None else where(seen, p, 0.0)

    def _spread(self, mask: Array) -> Array:
        batch, heads, *rest = mask.shape
        split = (1, 1) if heads == 1 else (self.groups, heads // self.groups)
        out: Array = reshape(mask, (batch, *split, *rest))
        return out

    def to_p(self) -> Array:
        """g v^T - delta."""
        out: Array = subtract(matmul(self.g, swapaxes(self.v, -1, -2)), self.delta)
        return out

    def d(self) -> Array:
        """The gradient by the scaled products."""
        out: Array = multiply(multiply(self.weights(), self.to_p()), self.scale)
        return out

    def to_mask(self) -> Array | None:
        """The first gradient by the mask, if it is of floats."""
        if self.mask is None or self.mask.dtype == BOOL:
            return None
        return self._gathered(multiply(self.weights(), self.to_p()))

    def _gathered(self, of_scores: Array) -> Array:
        assert self.mask is not None
        spread = unbroadcast(of_scores, self._spread(self.mask))
        out: Array = reshape(spread, self.mask.shape)
        return out

    def give(self, name: str, value: Array) -> None:
        """Add to a cotangent."""
        self.found[name] = add(self.found[name], value) if name in self.found else value

    def from_d(self, c: Array) -> None:
        """Pull back a cotangent of `d`."""
        p, to_p = self.weights(), self.to_p()
        scaled = multiply(c, self.scale)
        of_products = multiply(scaled, p)
        self.give("delta", multiply(sum(of_products, -1), -1.0))
        self.give("g", matmul(of_products, self.v))
        self.give("v", matmul(swapaxes(of_products, -1, -2), self.g))
        self.from_scores(multiply(multiply(scaled, to_p), p))

    def from_scores(self, c: Array) -> None:
        """Pull back a cotangent of the scores."""
        self.give("sums", multiply(sum(c, -1), -1.0))
        scaled = multiply(c, self.scale)
        self.give("q", matmul(scaled, self.k))
        self.give("k", matmul(swapaxes(scaled, -1, -2), self.q))
        if self.mask is not None and self.mask.dtype != BOOL:
            self.found["mask"] = self._gathered(c)

    def cotangents(self) -> Cotangents:
        """By q, k, v, sums, delta, g and mask, in the inputs' axes."""
        out: Cotangents = []
        for name in ("q", "k", "v", "sums", "delta", "g"):
            value = self.found.get(name)
            if value is not None and name in ("k", "v"):
                value = transpose(sum(value, 2), (0, 2, 1, 3))
            elif value is not None:
                value = self._back(value)
            out.append(value)
        return [*out, self.found.get("mask")]

    def _back(self, x: Array) -> Array:
        batch, groups, each, length, *rest = x.shape
        moved = transpose(x, (0, 3, 1, 2, *range(4, x.ndim)))
        out: Array = reshape(moved, (batch, length, groups * each, *rest))
        return out
