"""Views: how an array is laid out over the memory of another.

A `Layout` is an offset and strides, in elements, over a base node's C-contiguous values. View ops
(reshape, transpose, slice, broadcast) only change layouts; no data moves. `canonicalize` copies
where a kernel needs contiguous memory and a layout cannot give it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpubp.core import CONST, SLOT, Graph, Kind, Node, OpSpec, Shape, live_order
from gpubp.core.strided import Strided, c_strides, is_contiguous
from gpubp.errors import VerificationError
from gpubp.ops.logic import COPY
from gpubp.ops.shape import BROADCAST_TO, RESHAPE, TRANSPOSE


class Layout(NamedTuple):
    """`base`'s values read at `offset + sum(index[i] * strides[i])`."""

    base: Node
    offset: int
    shape: Shape
    strides: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        """The elements lie back to back in C order (the layout may start inside the base)."""
        return is_contiguous(self.shape, self.strides)

    @property
    def whole(self) -> bool:
        """It is exactly the base's own memory."""
        shape, base = self.shape, self.base.shape
        full = shape == base or math.prod(shape) == math.prod(base)
        return full and self.offset == 0 and is_contiguous(shape, self.strides)


def own(node: Node) -> Layout:
    """A node over its own memory."""
    return Layout(node, 0, node.shape, c_strides(node.shape))


def view_layout(node: Node, source: Layout) -> Layout | None:
    """The layout of a view op applied to `source`; None where strides cannot express it."""
    if node.spec.view is None:
        raise VerificationError(f"no layout rule for the view op {node.spec.name}")
    plain = Strided(source.offset, source.shape, source.strides)
    found = node.spec.view(plain, node.shape, **node.attrs)
    return None if found is None else Layout(source.base, *found)


def collapse(shape: Shape, *strides: tuple[int, ...]) -> tuple[Shape, list[tuple[int, ...]]]:
    """Merge neighbouring axes that all stride tuples walk as one, and drop axes of size 1."""
    dims: list[list[int]] = []
    for i, n in enumerate(shape):
        if n == 1:
            continue
        here = [s[i] for s in strides]
        if dims and all(p == s * n for p, s in zip(dims[-1][1:], here)):
            dims[-1] = [dims[-1][0] * n, *here]
        else:
            dims.append([n, *here])
    if not dims:
        dims = [[1, *([0] * len(strides))]]
    return tuple(d[0] for d in dims), [tuple(d[i + 1] for d in dims) for i in range(len(strides))]


def matrix_batch_stride(shape: Shape, strides: tuple[int, ...], batch: Shape) -> int | None:
    """The one stride that walks an operand's axes, broadcast to `batch`; None if none does."""
    if not batch:
        return 0
    extra = len(batch) - (len(shape) - 2)
    walked = [s if n != 1 else 0 for n, s in zip(shape[:-2], strides[:-2])]
    dims, (steps,) = collapse(batch, (0,) * extra + tuple(walked))
    return steps[0] if len(dims) == 1 else None


def split_axes(shape: Shape, axes: tuple[int, ...]) -> tuple[int, int, int]:
    """(outer, reduced, inner) sizes of a reduction over neighbouring axes."""
    if not axes:
        return math.prod(shape), 1, 1
    first, after = axes[0], axes[-1] + 1
    return math.prod(shape[:first]), math.prod(shape[first:after]), math.prod(shape[after:])


_CONTIGUOUS_KINDS = (
    Kind.ROWWISE,
    Kind.CONV,
    Kind.MOVE,
    Kind.CUSTOM,
    Kind.REDUCE,
    Kind.LOOP,
)


def canonicalize(graph: Graph) -> tuple[Graph, dict[int, Layout]]:
    """A copy of the live part of `graph` in which every view has a layout.

    Copies are inserted where a view cannot be expressed by strides, where a kernel needs contiguous
    input, and where an output or a write is not a computed value of its own.

    Returns:
        (graph, layouts): layouts by node index.
    """
    return _Canonical(graph).result()


class _Canonical:
    def __init__(self, graph: Graph) -> None:
        self.source = graph
        self.graph = Graph()
        self.layouts: dict[int, Layout] = {}
        self.new: dict[int, Node] = {}
        self.claimed: set[int] = set()
        self.copies: dict[Any, Node] = {}
        self.order = live_order(graph)
        self.flipped = _only_transposed(graph, self.order)

    def result(self) -> tuple[Graph, dict[int, Layout]]:
        for node in self.source.inputs:
            self.new[node.index] = self._owned(self.graph.input(node.shape, node.dtype))
        for node in self.order:
            if node.index not in self.new and node.index not in self.flipped:
                self.new[node.index] = self._translate(node)
        self.graph.writes = [(s, self._claim(self.new[n.index])) for s, n in self.source.writes]
        self.graph.outputs = [self._claim(self.new[n.index]) for n in self.source.outputs]
        return self.graph, self.layouts

    def _translate(self, node: Node) -> Node:
        if node.spec is CONST:
            made = self.graph.append(CONST, (), {}, node.shape, node.dtype, node.payload)
            return self._owned(made)
        if node.spec is SLOT:
            return self._owned(self.graph.slot(node.payload))
        if node.inputs and node.inputs[0].index in self.flipped:
            return self._transposed_product(node, node.inputs[0])
        inputs = [self.new[i.index] for i in node.inputs]
        if node.spec.kind in _CONTIGUOUS_KINDS:
            inputs = [self._readable(node.spec, i, x) for i, x in enumerate(inputs)]
        if node.spec.kind is Kind.MATMUL:
            inputs = [self._matrices(i, node.shape[:-2]) for i in inputs]
        if node.spec.kind is Kind.REDUCE and not _neighbours(node):
            return self._reduce_in_turn(node, inputs[0])
        made = self.graph.append(node.spec, tuple(inputs), node.attrs, node.shape, node.dtype)
        if node.spec.kind is not Kind.VIEW:
            return self._owned(made)
        layout = view_layout(made, self.layouts[inputs[0].index])
        if layout is None:
            inputs[0] = self._copy_to_read(inputs[0])
            made = self.graph.append(node.spec, tuple(inputs), node.attrs, node.shape, node.dtype)
            layout = view_layout(made, self.layouts[inputs[0].index])
        assert layout is not None
        self.layouts[made.index] = layout
        return made

    def _transposed_product(self, node: Node, product: Node) -> Node:
        """(A B)^T as B^T A^T, so that the product is computed in the layout it is used in."""
        batch = node.shape[:-2]
        turned = (self._transposed(self.new[i.index]) for i in product.inputs)
        a, b = (self._matrices(x, batch) for x in turned)
        made = self.graph.append(product.spec, (b, a), {}, node.shape, node.dtype)
        return self._owned(made)

    def _transposed(self, node: Node) -> Node:
        axes = (*range(len(node.shape) - 2), len(node.shape) - 1, len(node.shape) - 2)
        shape = tuple(node.shape[a] for a in axes)
        made = self.graph.append(TRANSPOSE, (node,), {"axes": axes}, shape, node.dtype)
        return self._viewed(made, self.layouts[node.index])

    def _owned(self, node: Node) -> Node:
        self.layouts[node.index] = own(node)
        return node

    def _viewed(self, node: Node, source: Layout) -> Node:
        """A view that strides can express."""
        layout = view_layout(node, source)
        assert layout is not None
        self.layouts[node.index] = layout
        return node

    def _copy(self, node: Node) -> Node:
        """A copy of its own."""
        made = self.graph.append(COPY, (node,), {}, node.shape, node.dtype)
        return self._owned(made)

    def _copy_to_read(self, node: Node) -> Node:
        """A copy that all who read such a view share."""
        layout = self.layouts[node.index]
        key = (layout.base.index, *layout[1:])
        if key not in self.copies:
            self.copies[key] = self._copy(node)
        return self.copies[key]

    def _readable(self, spec: OpSpec, position: int, node: Node) -> Node:
        """An input as the kernel of an op can read it."""
        layout = self.layouts[node.index]
        scalar = position in spec.scalar_inputs and all(s == 0 for s in layout.strides)
        strided = position in spec.strided and (layout.shape[-1] == 1 or layout.strides[-1] == 1)
        return node if layout.contiguous or scalar or strided else self._copy_to_read(node)

    def _matrices(self, node: Node, batch: Shape) -> Node:
        """A matmul operand whose batch axes are walked by one stride."""
        layout = self.layouts[node.index]
        if matrix_batch_stride(layout.shape, layout.strides, batch) is not None:
            return node
        shape = (*batch, *node.shape[-2:])
        made = self.graph.append(BROADCAST_TO, (node,), {"shape": shape}, shape, node.dtype)
        return self._copy_to_read(self._viewed(made, layout))

    def _reduce_in_turn(self, node: Node, source: Node) -> Node:
        """A reduction over axes that are not neighbours, one run of axes after the other."""
        runs = _axis_runs(node.attrs["axis"])
        for axes in reversed(runs):
            shape = tuple(1 if i in axes else n for i, n in enumerate(source.shape))
            attrs = {**node.attrs, "axis": axes, "keepdims": True}
            source = self._owned(self.graph.append(node.spec, (source,), attrs, shape, node.dtype))
        if source.shape == node.shape:
            return source
        attrs = {"shape": node.shape}
        made = self.graph.append(RESHAPE, (source,), attrs, node.shape, node.dtype)
        return self._viewed(made, self.layouts[source.index])

    def _claim(self, node: Node) -> Node:
        """A computed value that this output alone owns."""
        if node.is_leaf or node.spec.kind is Kind.VIEW or node.index in self.claimed:
            node = self._copy(node)
        self.claimed.add(node.index)
        return node


def _only_transposed(graph: Graph, order: list[Node]) -> set[int]:
    """Matrix products whose only use is one transpose of their last two axes."""
    users: dict[int, list[Node | None]] = {n.index: [] for n in order}
    for node in order:
        for source in node.inputs:
            users[source.index].append(node)
    for node in [*graph.outputs, *[n for _, n in graph.writes]]:
        users[node.index].append(None)
    found = set()
    for node in order:
        if node.spec.kind is Kind.MATMUL and len(users[node.index]) == 1:
            user = users[node.index][0]
            if user is not None and user.spec is TRANSPOSE:
                n = len(node.shape)
                if user.attrs["axes"] == (*range(n - 2), n - 1, n - 2):
                    found.add(node.index)
    return found


def _axis_runs(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    runs: list[list[int]] = []
    for axis in axes:
        if runs and axis == runs[-1][-1] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return [tuple(r) for r in runs]


def _neighbours(node: Node) -> bool:
    return len(_axis_runs(node.attrs["axis"])) <= 1
