"""A graph of one sample as one of many: the rules of `gp.vmap`, by the kind of an op.

Comes in: nodes that depend on stand-ins for one sample. Goes out: nodes of the same graph that make
all samples. Each is appended again with an axis of samples in front, by its op's own rule
(`OpSpec.batched`), or by that of its kind; without a rule, once a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpubp import ops
from gpubp.compiler.custom_vjp import refuse
from gpubp.core import INPUT, Array, Graph, Kind, Node, bind, describe
from gpubp.errors import ShapeError, TraceError
from gpubp.ops.batched import once_each

LIMIT = 256  # samples of an op that has no rule: it is appended once for each


def stand_in(graph: Graph, shape: Sequence[int], dtype: Any) -> Node:
    """A leaf that stands for one sample; what depends on it is replaced before the trace ends."""
    return graph.append(INPUT, (), {}, tuple(shape), dtype, -1)


def batch(
    graph: Graph,
    wanted: Sequence[Node],
    values: dict[int, Array],
    samples: int,
    randomness: str = "same",
    start: int | None = None,
) -> list[Array | None]:
    """Append what makes `wanted` for all samples.

    Args:
        graph: the graph; ops are appended to it, which must be the active one.
        wanted: nodes of one sample.
        values: by a stand-in's index, all samples, along the first axis. What is made is added.
        samples: how many.
        randomness: what random numbers inside are; see `vmap`.
        start: random ops from this node on are inside.

    Returns:
        For each of `wanted` its samples along the first axis; None where it is the same for all.
    """
    first = min(values, default=len(graph.nodes))
    last = max([n.index for n in wanted], default=-1)
    inside = graph.nodes[first : last + 1]
    needed = {n.index for n in wanted}
    for node in reversed(inside):
        if node.index in needed:
            needed.update([i.index for i in node.inputs])
    loops: dict[int, list[Node]] = {}  # of each sample
    for node in inside:
        if node.index not in needed or node.index in values:
            continue
        if node.spec.kind is Kind.RANDOM and start is not None and node.index >= start:
            _draw(graph, node, values, samples, randomness)
        elif node.spec.kind is Kind.LOOP:
            if any(i.index in values for i in node.inputs):
                loops[node.index] = _loops(graph, node, values, samples)
        elif node.spec.kind is Kind.PIECE and node.inputs[0].index in loops:
            each = [graph.add(node.spec, (x,), node.attrs) for x in loops[node.inputs[0].index]]
            values[node.index] = ops.stack([Array(graph, n) for n in each], 0)
        elif any(i.index in values for i in node.inputs):
            values[node.index] = _batched(graph, node, values, samples)
            if node.index in graph.rules:
                refuse(graph, node, values[node.index].node)
    return [values.get(n.index) for n in wanted]


def _draw(
    graph: Graph, node: Node, values: dict[int, Array], samples: int, randomness: str
) -> None:
    """Random numbers for all samples, or the same ones."""
    if randomness == "error":
        raise TraceError(
            "vmap: the function draws random numbers. Say what the samples get with "
            'randomness="different" or randomness="same".'
        )
    if randomness == "different":
        attrs = {**node.attrs, "shape": (samples, *node.shape)}
        values[node.index] = bind(node.spec, *[Array(graph, i) for i in node.inputs], **attrs)


def _batched(graph: Graph, node: Node, values: dict[int, Array], samples: int) -> Array:
    """The op for all samples."""
    given = [i.index in values for i in node.inputs]
    inputs = [values[i.index] if i.index in values else Array(graph, i) for i in node.inputs]
    found: Any = None
    if node.spec.batched is not None:
        found = node.spec.batched(node.spec, samples, given, inputs, node.attrs)
        if isinstance(found, dict):
            found = bind(node.spec, *inputs, **found)
    elif node.spec.kind in _RULES:
        found = _RULES[node.spec.kind](node, given, inputs)
    if found is None:
        found = _by_rows(node, given, inputs, samples)
    if found is None:
        found = _one_by_one(node, given, inputs, samples)
    if found.shape != (samples, *node.shape):
        raise ShapeError(
            f"vmap: the rule of {node.spec.name} gave {describe(found)} for {samples} samples of "
            f"{describe(node)}."
        )
    return found  # type: ignore[no-any-return]


def _padded(x: Any, own: bool, rank: int) -> Any:
    """Samples of fewer axes than the result: axes of size 1 between, as broadcasting has them."""
    missing = rank + 1 - len(x.shape)
    if not own or missing <= 0:
        return x
    return ops.reshape(x, (x.shape[0], *(1,) * missing, *x.shape[1:]))


def _elementwise(node: Node, given: Sequence[bool], inputs: Sequence[Any]) -> Any:
    rank = len(node.shape)
    padded = [_padded(x, own, rank) for x, own in zip(inputs, given, strict=True)]
    return bind(node.spec, *padded, **node.attrs)


def _same_view(node: Node, given: Sequence[bool], inputs: Sequence[Any]) -> Any:
    """Views that have no rule of their own leave shapes as they are."""
    return bind(node.spec, *inputs, **node.attrs)


def _reduce(node: Node, given: Sequence[bool], inputs: Sequence[Any]) -> Any:
    axis = tuple(a + 1 for a in node.attrs["axis"])
    return bind(node.spec, *inputs, **{**node.attrs, "axis": axis})


def _matmul(node: Node, given: Sequence[bool], inputs: Sequence[Any]) -> Any:
    (a, b), rank = inputs, len(node.shape)
    if not given[1] and len(b.shape) == 2:  # rows of all samples in one product
        rows = ops.reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return ops.reshape(bind(node.spec, rows, b, **node.attrs), (*a.shape[:-1], b.shape[-1]))
    padded = [_padded(x, own, rank) for x, own in zip(inputs, given, strict=True)]
    return bind(node.spec, *padded, **node.attrs)


_RULES: dict[Kind, Callable[[Node, Sequence[bool], Sequence[Any]], Any]] = {
    Kind.ELEMENTWISE: _elementwise,
    Kind.VIEW: _same_view,
    Kind.REDUCE: _reduce,
    Kind.MATMUL: _matmul,
}


def _by_rows(node: Node, given: Sequence[bool], inputs: Sequence[Any], samples: int) -> Any:
    """An op that makes rows of rows: those of all samples are rows like others.

    None unless it is one: by rows of all its inputs of which a sample has its own.
    """
    spec = node.spec
    read: Sequence[int] = range(len(inputs)) if spec.kind is Kind.ROWWISE else ()
    if spec.row_inputs is not None:
        read = spec.row_inputs(len(inputs), **node.attrs) or ()
    own = {i for i, has in enumerate(given) if has}
    rows = [node.inputs[i].shape[:1] for i in read]
    if not node.shape or not own <= set(read) or any(r != node.shape[:1] for r in rows):
        return None
    merged = list(inputs)
    for i in read:
        x = inputs[i] if given[i] else once_each(inputs[i], samples)
        merged[i] = ops.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    out = bind(spec, *merged, **node.attrs)
    if out.shape != (samples * node.shape[0], *node.shape[1:]):
        return None
    return ops.reshape(out, (samples, *node.shape))


def _require_few(node: Node, samples: int) -> None:
    """What has no rule is computed sample by sample."""
    if samples > LIMIT:
        raise TraceError(
            f"vmap: {node.spec.name} has no rule for many samples and would be computed once for "
            f"each of {samples}; the limit is {LIMIT}. Map over parts of the samples, or call it "
            "on all of them outside of vmap."
        )
    if not samples:
        raise TraceError(f"vmap: {node.spec.name} has no rule for no samples at all.")


def _loops(graph: Graph, node: Node, values: dict[int, Array], samples: int) -> list[Node]:
    """A loop for each sample."""
    _require_few(node, samples)
    found = []
    for i in range(samples):
        own = [values[n.index][i].node if n.index in values else n for n in node.inputs]
        found.append(graph.add(node.spec, tuple(own), node.attrs))
    return found


def _one_by_one(node: Node, given: Sequence[bool], inputs: Sequence[Any], samples: int) -> Any:
    """The op once a sample, its results one above another."""
    _require_few(node, samples)
    each = []
    for i in range(samples):
        mine = [x[i] if own else x for x, own in zip(inputs, given, strict=True)]
        each.append(bind(node.spec, *mine, **node.attrs))
    return ops.stack(each, 0)
