"""The body of a loop: a graph inside of a graph, and the op that runs it again and again.

Comes in: a function of (carry, x), traced into a `Body`. Goes out: a node of the op `loop` in the
graph around, and its pieces: nodes that stand for what the loop leaves behind.

Holds in between: whatever the body reads of the graph around it is an input of the body and of the
loop; ops that read nothing else are done before the loop, once. A value of the body may become a
piece at any time, so that gradients can ask for what they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpubp import ops
from gpubp.compiler.trace import evaluate_graph
from gpubp.core import (
    ALIAS,
    CONST,
    SLOT,
    Array,
    ArrayType,
    Graph,
    Kind,
    Node,
    OpSpec,
    Shape,
    Typed,
)
from gpubp.core.store import Slot
from gpubp.errors import TraceError

FINAL, BEFORE, VALUE = "final", "history", "value"
SMALL_CONSTANT = 64  # elements; larger ones of the graph around are read where they are
_STAY = (Kind.RANDOM, Kind.CUSTOM, Kind.LOOP, Kind.PIECE)


class Body(Graph):
    """The graph of a loop's body.

    Args:
        outer: the graph around it.

    Attributes:
        captured: of inputs that stand for values of the graph around: input -> node there.
    """

    def __init__(self, outer: Graph) -> None:
        super().__init__()
        self.outer = outer
        self.facts = outer.facts
        self.samples = outer.samples
        self.random_streams = outer.random_streams
        self.captured: dict[int, Node] = {}
        self._inside: dict[int, Node] = {}

    def lift(self, value: Any, dtype: Any = None) -> Node:
        """As `Graph.lift`; arrays of the graphs around become inputs."""
        if isinstance(value, Array) and value.graph is not self and self._is_around(value.graph):
            return self.capture(self.outer.lift(value))
        if isinstance(value, np.ndarray) and value.size > SMALL_CONSTANT and dtype is None:
            return self.capture(self.outer.lift(value))
        return super().lift(value, dtype)

    def slot(self, slot: Slot) -> Node:
        """As `Graph.slot`: the value before the loop, or what the body has assigned."""
        return self._known.get((Slot, id(slot))) or self.capture(self.outer.slot(slot))

    def assign(self, slot: Slot, node: Node) -> None:
        """`slot` is carried from one round to the next."""
        if hasattr(slot, "requires_grad"):
            raise TraceError(
                f"{slot.name} is a parameter, which the body of a loop cannot assign: keep state "
                "that changes in an nn.Buffer."
            )
        self.writes = [(s, n) for s, n in self.writes if s is not slot] + [(slot, node)]
        self._known[Slot, id(slot)] = node

    def capture(self, node: Node) -> Node:
        """The input that stands for a node of the graph around; a constant for a small one."""
        found = self._inside.get(node.index)
        if found is None:
            if node.spec is CONST and (node.weak or node.size <= SMALL_CONSTANT):
                found = self.constant(node.payload, node.weak)
            else:
                found = self.input(node.shape, node.dtype, node.weak)
                self.captured[found.index] = node
            self._inside[node.index] = found
        return found

    def add(
        self,
        spec: OpSpec,
        inputs: tuple[Node, ...],
        attrs: dict[str, Any],
        weak: bool | None = None,
    ) -> Node:
        """As `Graph.add`; what is the same in every round is computed before the loop."""
        if self._is_invariant(spec, inputs) and _shrinks(spec, inputs, attrs):
            outside = tuple([self._outside(n) for n in inputs])
            return self.capture(self.outer.add(spec, outside, attrs, weak))
        return super().add(spec, inputs, attrs, weak)

    def _is_around(self, graph: Any) -> bool:
        around = self.outer
        while around is not graph and isinstance(around, Body):
            around = around.outer
        return around is graph

    def _is_invariant(self, spec: OpSpec, inputs: Sequence[Node]) -> bool:
        # An alias is what the body differentiates by: the path from it must stay in the body.
        if spec is ALIAS or spec.kind in _STAY:
            return False
        known = [n.index in self.captured and not self._may_change(n) for n in inputs]
        return any(known) and all(k or n.spec is CONST for k, n in zip(known, inputs))

    def _may_change(self, node: Node) -> bool:
        """An input that the body may yet assign: state of modules, but no parameter."""
        outside = self.captured[node.index]
        if isinstance(self.outer, Body) and outside.index in self.outer.captured:
            return self.outer._may_change(outside)
        return outside.spec is SLOT and not hasattr(outside.payload, "requires_grad")

    def _outside(self, node: Node) -> Node:
        if node.index in self.captured:
            return self.captured[node.index]
        return self.outer.constant(node.payload, node.weak)

    def __repr__(self) -> str:
        return f"<{len(self.nodes)} nodes>"


def _shrinks(spec: OpSpec, inputs: Sequence[Node], attrs: dict[str, Any]) -> bool:
    """The result is not larger than all that it is made of: a broadcast stays where it is."""
    out = spec.infer(*inputs, **attrs)
    return int(np.prod(out.shape)) <= max(n.size for n in inputs)


class Loop(NamedTuple):
    """What a loop does: the static attribute of its op.

    Attributes:
        body: its graph.
        carries: (position among the body's inputs, node that it is after a round).
        sliced: positions of the inputs of which round t reads element t along the first axis.
        length: rounds.
        reverse: from the last element to the first.
        until: number of a carry, a bool of shape (), without which no further round begins; -1.
    """

    body: Body
    carries: tuple[tuple[int, Node], ...]
    sliced: tuple[int, ...]
    length: int
    reverse: bool
    until: int = -1

    def __hash__(self) -> int:
        return id(self.body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loop) and other.body is self.body and tuple(self) == tuple(other)

    def rounds(self) -> range:
        """The elements in the order in which they are read."""
        steps = range(self.length)
        return steps[::-1] if self.reverse else steps

    def type_of(self, kind: str, at: int) -> ArrayType:
        """Of a piece."""
        if kind == VALUE:
            node = self.body.nodes[at]
            return ArrayType((self.length, *node.shape), node.dtype)
        node = self.body.inputs[self.carries[at][0]]
        shape: Shape = node.shape if kind == FINAL else (self.length + 1, *node.shape)
        return ArrayType(shape, node.dtype)

    def __repr__(self) -> str:
        order = "backwards " if self.reverse else ""
        return f"<{self.length} rounds {order}of {len(self.body.nodes)} nodes>"


class Rounds:
    """All that a loop computes on concrete arrays, round by round: the value of the op `loop`."""

    shape, dtype = (0,), np.dtype(np.float32)

    def __init__(self, loop: Loop, inputs: Sequence[Any]) -> None:
        self._loop = loop
        self._inputs: list[list[Any]] = []
        self._values: list[dict[int, Any]] = []
        carry = [inputs[position] for position, _ in loop.carries]
        self._carries = [carry]
        graph = goal(loop.body, [node for _, node in loop.carries])
        for t in loop.rounds():
            if loop.until >= 0 and not carry[loop.until]:
                break
            given = list(inputs)
            for position in loop.sliced:
                given[position] = inputs[position][t]
            for (position, _), value in zip(loop.carries, carry):
                given[position] = value
            values: dict[int, Any] = {}
            carry = evaluate_graph(graph, given, values)
            self._carries.append(carry)
            self._inputs.append(given)
            self._values.append(values)

    def piece(self, kind: str, at: int) -> Any:
        """A piece of the loop, see `Loop.type_of`."""
        loop, wanted = self._loop, self._loop.type_of(kind, at)
        if kind == FINAL:
            return self._carries[-1][at]
        if kind == BEFORE:
            rows = [carry[at] for carry in self._carries]
        else:
            graph = goal(loop.body, [loop.body.nodes[at]])
            rows = [
                evaluate_graph(graph, given, values)[0]
                for given, values in zip(self._inputs, self._values)
            ]
        if not rows:
            return np.zeros(wanted.shape, wanted.dtype)
        return ops.stack(rows[::-1] if loop.reverse else rows)


def goal(body: Graph, outputs: Sequence[Node]) -> Graph:
    """The body's graph with these outputs; its nodes are shared."""
    found = Graph()
    found.nodes, found.inputs, found.outputs = body.nodes, body.inputs, list(outputs)
    return found


def _piece_infer(loop: Typed, *, kind: str, at: int, of: Loop) -> ArrayType:
    return of.type_of(kind, at)


def _piece(rounds: Any, *, kind: str, at: int, of: Loop) -> Any:
    return rounds.piece(kind, at)


PIECE = OpSpec("piece", Kind.PIECE, _piece_infer, _piece, flops=0.0)


def piece(node: Node, graph: Graph, kind: str, at: int) -> Array:
    """A piece of a loop.

    Args:
        node: of the op `loop`, in `graph`.
        kind, at: FINAL or BEFORE and the number of a carry (its last value, or all values, that
            before the first round included), or VALUE and the index of a node of the body (its
            values, stacked).
    """
    attrs = {"kind": kind, "at": at, "of": node.attrs["loop"]}
    return Array(graph, graph.add(PIECE, (node,), attrs))
