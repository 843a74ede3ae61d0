"""The graph: nodes in SSA form, equal ones once, constants folded as they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import numpy as np

from gpubp.core.array import Array, concrete
from gpubp.core.facts import Facts
from gpubp.core.keys import exact
from gpubp.core.node import Node
from gpubp.core.spec import (
    ALIAS,
    CONST,
    INPUT,
    SLOT,
    ArrayType,
    ConcreteArray,
    Kind,
    OpSpec,
    Shape,
    checked_dtype,
    describe,
    is_to_come,
)
from gpubp.core.store import Slot
from gpubp.errors import TraceError


class Graph:
    """An append-only list of nodes.

    Attributes:
        nodes: all nodes, topologically ordered.
        inputs: the INPUT leaves, in call order.
        outputs: what the program returns.
        writes: (slot, node): at the end, `slot` takes the node's value.
        facts: what was read of Python's state while tracing.
        ratios: by the index of a node that is a mean over a count, (sum, count); the count is None
            where the node is a sum; see `gpubp.runtime.totals`.
        sums: indices of nodes that are sums over samples: those of parts of a batch add up.
        notes: what a loss says about the model's outputs; see `note`.
        recomputed: parts of it whose values are made again for gradients; see
            `gpubp.compiler.checkpoint`.
        rules: by the index of a node, how its cotangent goes on where a user says so; see
            `gpubp.compiler.custom_vjp`.
        samples: of the first input that has an axis of samples; 0 where none has.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.outputs: list[Node] = []
        self.writes: list[tuple[Slot, Node]] = []
        self.random_streams = 0
        self.facts = Facts()
        self.ratios: dict[int, tuple[Node, Node | None]] = {}
        self.sums: set[int] = set()
        self.notes: dict[str, Any] = {}
        self.samples = 0
        self.recomputed: list[Any] = []
        self.rules: dict[int, Any] = {}
        self._known: dict[Any, Node] = {}
        self._leaves: dict[int, Node] = {}  # what slots are at the start
        self._constants: dict[Any, list[tuple[bytes, Node]]] = {}

    def add(
        self,
        spec: OpSpec,
        inputs: tuple[Node, ...],
        attrs: dict[str, Any],
        weak: bool | None = None,
    ) -> Node:
        """Append `spec` applied to `inputs`, or return the equal node that is there.

        Args:
            spec: the op.
            inputs: nodes of this graph.
            attrs: static attributes.
            weak: whether the result is; by default, if all its float inputs are.
        """
        if weak is None:
            weak = True in [n.weak for n in inputs] and _stays_weak(spec, inputs)
        key = (spec, weak, *[n.index for n in inputs], *[(k, exact(v)) for k, v in attrs.items()])
        node = self._known.get(key)
        if node is None:
            out = spec.infer(*inputs, **attrs)
            weak = weak and out.dtype.kind == "f"
            if _foldable(spec, inputs, out, weak):
                value = spec.reference(*[n.payload for n in inputs], **attrs)
                node = self.constant(np.asarray(value, dtype=out.dtype), weak)
            else:
                node = self.append(spec, inputs, attrs, out.shape, out.dtype, weak=weak)
            self._known[key] = node
        return node

    def input(self, shape: Shape, dtype: Any, weak: bool = False) -> Node:
        """Append the next positional input."""
        checked, position = checked_dtype(dtype), len(self.inputs)
        node = self.append(INPUT, (), {}, tuple(shape), checked, position, weak)
        self.inputs.append(node)
        return node

    def constant(self, value: ConcreteArray, weak: bool = False) -> Node:
        """A constant: a copy of `value` as it is now; equal ones are one."""
        dtype = checked_dtype(value.dtype)
        weak = weak or is_to_come(dtype)
        data = value.tobytes()
        # The checksum finds what may be equal, the comparison says whether it is.
        known = self._constants.setdefault((value.shape, dtype, weak, crc32(data)), [])
        for content, node in known:
            if content == data:
                return node
        own: ConcreteArray = np.ndarray(value.shape, dtype.str, data)
        node = self.append(CONST, (), {}, value.shape, dtype, own, weak)
        known.append((data, node))
        return node

    def slot(self, slot: Slot) -> Node:
        """The value that `slot` has when the program starts a step."""
        key = (SLOT, id(slot))
        node = self._known.get(key)
        if node is None:
            dtype = checked_dtype(slot.dtype)
            node = self._known[key] = self.append(SLOT, (), {}, slot.shape, dtype, slot)
            self._leaves[id(slot)] = node
        return node

    def array(self, slot: Slot) -> Array:
        """The value of `slot` here: at the start of a step, or what it was assigned since."""
        return Array(self, self.slot(slot))

    def leaf(self, slot: Slot) -> Node:
        """The value that `slot` has at the start, whatever it was assigned since."""
        first = self._leaves.get(id(slot))
        return self.slot(slot) if first is None else first

    def assign(self, slot: Slot, node: Node) -> None:
        """`slot` takes the node's value at the end; what is read from now on is that value."""
        self.writes = [(s, n) for s, n in self.writes if s is not slot] + [(slot, node)]
        self._known[(SLOT, id(slot))] = node

    @contextmanager
    def in_place(self, values: Sequence[tuple[Slot, Node]]) -> Iterator[None]:
        """Slots are these nodes for a while; what they are assigned in it is forgotten after."""
        keys = [(SLOT, id(slot)) for slot, _ in values]
        before = {key: self._known.get(key) for key in keys}
        ours = {id(slot) for slot, _ in values}
        written = [(s, n) for s, n in self.writes if id(s) in ours]
        self._known.update(zip(keys, [node for _, node in values]))
        try:
            yield
        finally:
            self.writes = [(s, n) for s, n in self.writes if id(s) not in ours] + written
            for key, node in before.items():
                self._known.pop(key)
                if node is not None:
                    self._known[key] = node

    def still_valid(self) -> bool:
        """Everything that was read while tracing is as it was."""
        return self.facts.hold()

    def calls_python(self) -> bool:
        """There is an op of the user's in it, or in the body of a loop."""
        kinds = (Kind.CUSTOM, Kind.LOOP)
        return any(
            n.spec.kind is Kind.CUSTOM or n.attrs["loop"].body.calls_python()
            for n in self.nodes
            if n.spec.kind in kinds
        )

    def slots(self) -> list[Slot]:
        """Every slot read so far, in order of first use."""
        return [n.payload for n in self.nodes if n.spec is SLOT]

    def lift(self, value: Any, dtype: Any = None) -> Node:
        """The node for an op's argument: traced array, slot, NumPy array or Python number."""
        if isinstance(value, Array):
            if value.graph is not self:
                raise TraceError(
                    f"a traced array {describe(value)} was used outside the function it was "
                    "traced in. Return it from that function instead of keeping it."
                )
            return value.node
        if isinstance(value, Slot):
            return self.slot(value)
        if type(value) is float and dtype is None:
            return self.constant(np.asarray(value), weak=True)
        if isinstance(value, np.ndarray) and value.ndim:
            self.facts.array(value)
        return self.constant(np.asarray(concrete(value), dtype=dtype))

    def append(
        self,
        spec: OpSpec,
        inputs: tuple[Node, ...],
        attrs: dict[str, Any],
        shape: Shape,
        dtype: np.dtype[Any],
        payload: Any = None,
        weak: bool = False,
    ) -> Node:
        """Append a node as given, without looking for an equal one."""
        if dtype.metadata is not None:
            dtype = np.dtype(dtype.str)
        node = Node(spec, inputs, attrs, shape, dtype, len(self.nodes), payload, weak)
        self.nodes.append(node)
        return node

    def __str__(self) -> str:
        lines = [repr(n) for n in self.nodes]
        lines += [f"write {s.name} <- %{n.index}" for s, n in self.writes]
        lines.append("return " + ", ".join(f"%{n.index}" for n in self.outputs))
        return "\n".join(lines)


def live_order(graph: Graph) -> list[Node]:
    """The nodes that outputs and writes depend on, in topological order."""
    needed = {n.index for n in graph.outputs} | {n.index for _, n in graph.writes}
    for node in reversed(graph.nodes):
        if node.index in needed:
            needed.update([i.index for i in node.inputs])
    return [n for n in graph.nodes if n.index in needed]


def _stays_weak(spec: OpSpec, inputs: tuple[Node, ...]) -> bool:
    """All float inputs are weak, and the op has no dtype in mind."""
    return not spec.settles and all(n.weak for n in inputs if n.dtype.kind == "f")


def _foldable(spec: OpSpec, inputs: tuple[Node, ...], out: ArrayType, weak: bool) -> bool:
    return (
        (out.shape == () or weak)
        and spec is not ALIAS
        and (weak or spec.kind in (Kind.ELEMENTWISE, Kind.VIEW))
        and bool(inputs)
        and all(n.spec is CONST for n in inputs)
    )
