"""Sums over all rounds of a loop, made behind it where that is less work than in each round.

A cotangent of weights is a product in each round, and that of a bias a sum: their factors are
stacked, and one product, or one sum, is made of all rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gpubp import ops
from gpubp.core import Array, Kind, Node, bind
from gpubp.ops.elementwise import ADD
from gpubp.ops.linalg import MATMUL
from gpubp.ops.reduce import SUM
from gpubp.ops.shape import BROADCAST_TO, TRANSPOSE

Stack = Callable[[Node], Array]


class Sum(NamedTuple):
    """A sum over all rounds, made behind the loop: of which nodes, from how they are stacked."""

    factors: tuple[Node, ...]
    make: Callable[[Stack], Array]


def sum_of_rounds(node: Node) -> Sum | None:
    """How to make the sum over all rounds behind the loop; None: it is to be carried."""
    if node.spec is ADD:
        parts = [sum_of_rounds(i) if i.shape == node.shape else None for i in node.inputs]
        first, second = parts
        if first is not None and second is not None:
            both = first.make, second.make
            factors = first.factors + second.factors
            return Sum(factors, lambda stack: both[0](stack) + both[1](stack))
    elif node.spec is SUM and not node.attrs.get("mean"):
        return Sum(node.inputs, lambda stack: _summed(stack(node.inputs[0]), node.attrs))
    elif node.spec is MATMUL and all(len(i.shape) == 2 for i in node.inputs):
        factors = tuple([_untransposed(i) for i in node.inputs])
        return Sum(factors, lambda stack: _product(stack, *node.inputs))
    elif node.spec.kind is Kind.VIEW and node.spec is not BROADCAST_TO:
        inner = sum_of_rounds(node.inputs[0])
        if inner is not None:
            make, spec, attrs = inner.make, node.spec, node.attrs
            return Sum(inner.factors, lambda stack: bind(spec, make(stack), **attrs))
    return None


def _summed(x: Array, attrs: dict[str, Any]) -> Array:
    axes = (0, *[a + 1 for a in attrs["axis"]])
    total: Array = ops.sum(x, axes)
    if attrs["keepdims"]:
        kept = [1 if a + 1 in axes else n for a, n in enumerate(x.shape[1:])]
        total = ops.reshape(total, kept)
    return total


def _untransposed(node: Node) -> Node:
    return node.inputs[0] if node.spec is TRANSPOSE and node.attrs["axes"] == (1, 0) else node


def _product(stack: Stack, a: Node, b: Node) -> Array:
    """The sum of the products of all rounds, as one product."""
    made: Array = _rows(stack, a, across=True) @ _rows(stack, b, across=False)
    return made


def _rows(stack: Stack, node: Node, across: bool) -> Array:
    """The matrices of all rounds beside each other (across), or one below the other."""
    base = _untransposed(node)
    x, turned = stack(base), base is not node
    if turned != across:
        x = ops.swapaxes(x, 1, 2)
    long: Array = ops.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))
    if across:
        long = ops.transpose(long)
    return long
