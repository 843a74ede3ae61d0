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
from gpubp.compiler.batched_loops import Batch, BatchedLoop, Replay, draws
from gpubp.compiler.custom_vjp import refuse
from gpubp.compiler.loop_body import VALUE
from gpubp.core import INPUT, Array, Graph, Kind, Node, bind, describe
from gpubp.errors import ShapeError, TraceError
from gpubp.ops.batched import once_each

_DRAWS = (
    "vmap: the function draws random numbers. Say what the samples get with "
    'randomness="different" or randomness="same".'
)
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
    again: dict[int, Node] | None = None,
) -> list[Array | None]:
    """Append what makes `wanted` for all samples.

    Args:
        graph: the graph; ops are appended to it, which must be the active one.
        wanted: nodes of one sample.
        values: by a stand-in's index, all samples, along the first axis. What is made is added.
        samples: how many.
        randomness: what random numbers inside are; see `vmap`.
        start: random ops from this node on are inside.
        again: takes nodes that are the same for all samples and yet made again, by their indices:
            what else a loop leaves behind some of whose values differ.

    Returns:
        For each of `wanted` its samples along the first axis; None where it is the same for all.
    """
    first = min([*values, *([] if start is None else [start])], default=len(graph.nodes))
    last = max([n.index for n in wanted], default=-1)
    inside = graph.nodes[first : last + 1]
    needed = {n.index for n in wanted}
    for node in reversed(inside):
        if node.index in needed:
            needed.update([i.index for i in node.inputs])
    batching = _Batching(graph, values, samples, randomness, start, {} if again is None else again)
    for node in inside:
        if node.index in needed and node.index not in values:
            batching.add(node)
    return [values.get(n.index) for n in wanted]


class _Batching:
    """What `batch` has made so far; for the arguments see there."""

    def __init__(
        self,
        graph: Graph,
        values: dict[int, Array],
        samples: int,
        randomness: str,
        start: int | None,
        again: dict[int, Node],
    ) -> None:
        self._graph, self._values, self._samples = graph, values, samples
        self._randomness, self._start, self._again = randomness, start, again
        # One of all samples, or one of each.
        self._loops: dict[int, BatchedLoop | list[Node]] = {}

    def add(self, node: Node) -> None:
        """Make a node for all samples, or again, where that must be."""
        graph, values, at = self._graph, self._values, node.index
        if node.spec.kind is Kind.PIECE and node.inputs[0].index in self._loops:
            self._piece(node, self._loops[node.inputs[0].index])
            return
        own = self._renewed(node)
        inside = self._start is not None and at >= self._start
        made: Array | None = None
        if own.spec.kind is Kind.RANDOM and inside:
            made = _draw(graph, own, self._samples, self._randomness)
        elif own.spec.kind is Kind.LOOP:
            self._loop(node, own, inside)
        elif any(i.index in values for i in own.inputs):
            made = _batched(graph, own, values, self._samples)
        if made is not None:
            values[at] = made
        elif own is not node:
            self._again[at] = own
        if at in graph.rules and (made is not None or own is not node):
            refuse(graph, node, own if made is None else made.node)

    def _renewed(self, node: Node) -> Node:
        """The node, of what was made again."""
        if not any(i.index in self._again for i in node.inputs):
            return node
        inputs = tuple([self._again.get(i.index, i) for i in node.inputs])
        return self._graph.add(node.spec, inputs, node.attrs, node.weak)

    def _loop(self, node: Node, own: Node, inside: bool) -> None:
        """One loop of all samples; one for each, if its length is not known."""
        loop = own.attrs["loop"]
        drawing = inside and draws(loop)
        if drawing and self._randomness == "error":
            raise TraceError(_DRAWS)
        different = drawing and self._randomness == "different"
        if not different and not any(i.index in self._values for i in own.inputs):
            return
        if loop.until < 0:
            stacks = [
                n.attrs["at"]
                for n in self._graph.nodes
                if n.spec.kind is Kind.PIECE and n.inputs[0] is node and n.attrs["kind"] == VALUE
            ]
            replay = Replay(self._body(0 if inside else None), stand_in, self._samples, different)
            self._loops[node.index] = BatchedLoop(self._graph, own, stacks, self._values, replay)
            return
        if drawing:
            raise TraceError(
                "vmap: a loop whose length the program finds out draws random numbers. Use "
                "gp.scan, or draw before the loop."
            )
        self._loops[node.index] = _loops(self._graph, own, self._values, self._samples)

    def _body(self, start: int | None) -> Batch:
        def within(
            body: Graph, wanted: Sequence[Node], own: dict[int, Array], again: dict[int, Node]
        ) -> list[Array | None]:
            return batch(body, wanted, own, self._samples, self._randomness, start, again)

        return within

    def _piece(self, node: Node, loop: BatchedLoop | list[Node]) -> None:
        """What a loop leaves behind."""
        if isinstance(loop, BatchedLoop):
            found, differs = loop.piece(node.attrs["kind"], node.attrs["at"])
            if differs:
                self._values[node.index] = found
            else:
                self._again[node.index] = found.node
            return
        each = [self._graph.add(node.spec, (x,), node.attrs) for x in loop]
        self._values[node.index] = ops.stack([Array(self._graph, n) for n in each], 0)


def _draw(graph: Graph, node: Node, samples: int, randomness: str) -> Array | None:
    """Random numbers for all samples; None where they are the same ones."""
    if randomness == "error":
        raise TraceError(_DRAWS)
    if randomness != "different":
        return None
    attrs = {**node.attrs, "shape": (samples, *node.shape)}
    made: Array = bind(node.spec, *[Array(graph, i) for i in node.inputs], **attrs)
    return made


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
