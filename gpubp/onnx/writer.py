"""A graph of ONNX while it is written: its nodes, constants and names.

Comes in: operators with the names of their inputs. Goes out: names of results, and at the end the
nodes of which something is used. Bodies of loops have a writer of their own, which sees all names
around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gpubp.core import CONST, Node
from gpubp.errors import FixedSizeError
from gpubp.onnx.sizes import Affine, Known, Size, Sizes, counted, uniform

OPSET = 20
_BATCH = "batch"
TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.bool_): TensorProto.BOOL,
}


class Writer:
    """One graph, or the body of a loop in it.

    Args:
        known: sizes as they follow the batch.
        outer: the writer of the graph around.

    Attributes:
        moved: result of a Transpose -> what it was made of, and how.
        with_bias: a product -> what writes it with a bias.
    """

    def __init__(self, known: Known, outer: Writer | None = None) -> None:
        self.known = known
        self.root: Writer = outer.root if outer else self
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.batch_input: tuple[str, int] | None = None  # an input, and its axis of the batch
        self._taken: set[str] = set()
        self._constants: dict[Any, str] = {}
        self.moved: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.with_bias: dict[str, Callable[[str], str]] = {}
        self._batch = ""

    def fresh(self, hint: str) -> str:
        """A name that nothing has: the hint, or the hint and a number."""
        taken = self.root._taken
        name, count = hint, 0
        while name in taken:
            count += 1
            name = f"{hint}_{count}"
        taken.add(name)
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append an operator of one result; returns the result's name."""
        return self.several(op, inputs, 1, **attributes)[0]

    def several(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Append an operator of several results."""
        names = [self.fresh(op.lower()) for _ in range(count)]
        attributes = {k: v for k, v in attributes.items() if not isinstance(v, list) or v}
        made = helper.make_node(op, list(inputs), names, name=names[0], **attributes)
        self.nodes.append(made)
        return names

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of an array that is known; equal ones are one."""
        array = np.asarray(value, dtype)
        key = array.dtype.str, array.shape, array.tobytes()
        root = self.root
        if key not in root._constants:
            name = root._constants[key] = self.fresh("constant")
            root.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
            root.initializers[name].dims[:] = array.shape
        return root._constants[key]

    def parameter(self, name: str, value: Any) -> str:
        """An initialiser of its own, under the module's name for it."""
        made = self.fresh(name)
        self.root.initializers[made] = numpy_helper.from_array(np.ascontiguousarray(value), made)
        self.root.initializers[made].dims[:] = value.shape
        return made

    def whole(self, values: Sequence[Size]) -> str:
        """A vector of whole numbers, int64, those that follow the batch computed."""
        if not any(isinstance(v, Affine) for v in values):
            return self.constant(np.array(values, np.int64))
        parts = [self._one(v) for v in values]
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def _one(self, value: Size) -> str:
        if isinstance(value, int):
            return self.constant(np.array([value], np.int64))
        found = self.batch()
        if value.slope != 1:
            found = self.node("Mul", found, self.constant(np.array([value.slope], np.int64)))
        if value.offset:
            found = self.node("Add", found, self.constant(np.array([value.offset], np.int64)))
        return found

    def batch(self) -> str:
        """The size of the batch, int64[1]."""
        root = self.root
        if not root._batch:
            assert root.batch_input is not None
            name, axis = root.batch_input
            root._batch = root.node("Shape", name, start=axis, end=axis + 1)
        return root._batch

    def reshape(self, name: str, before: Sizes, after: Sizes) -> str:
        """Another shape; one size that follows the batch is left to the reader."""
        if before == after:
            return name
        moving = [i for i, n in enumerate(after) if isinstance(n, Affine)]
        if not moving:
            return self.node("Reshape", name, self.whole(after))
        kept = all(i < len(before) and before[i] == after[i] for i in moving)
        if 0 not in after and kept:
            return self.node(
                "Reshape", name, self.whole([0 if i in moving else n for i, n in enumerate(after)])
            )
        if 0 not in after and len(moving) == 1:
            return self.node(
                "Reshape", name, self.whole([-1 if i in moving else n for i, n in enumerate(after)])
            )
        return self.node("Reshape", name, self.whole(after), allowzero=1)

    def expand(self, name: str, before: Sizes, after: Sizes) -> str:
        """NumPy's broadcast_to."""
        if before == after:
            return name
        lead = len(after) - len(before)
        wanted = [1 if i >= lead and before[i - lead] == n else n for i, n in enumerate(after)]
        return self.node("Expand", name, self.whole(wanted))

    def transpose(self, name: str, perm: Sequence[int]) -> str:
        """Another order of axes; of a transposed value, one move of what that was made of."""
        if name in self.moved:
            name, first = self.moved[name]
            perm = [first[p] for p in perm]
        if list(perm) == sorted(perm):
            return name
        made = self.node("Transpose", name, perm=list(perm))
        self.moved[made] = name, tuple(perm)
        return made

    def slice(self, name: str, starts: Any, ends: Any, axes: Any, steps: Any) -> str:
        """A part of an array."""
        if not axes:
            return name
        given = [self.whole(starts), self.whole(ends), self.constant(np.array(axes, np.int64))]
        if any(s != 1 for s in steps):
            given.append(self.constant(np.array(steps, np.int64)))
        return self.node("Slice", name, *given)

    def cast(self, name: str, dtype: Any) -> str:
        """As another dtype."""
        return self.node("Cast", name, to=TYPES[np.dtype(dtype)])

    def of_graph(self, node: Node) -> str:
        """A constant of the traced graph, whose values may follow the batch."""
        assert node.spec is CONST
        values, shape = self.known.varying(node), self.known.shape(node)
        if not values:
            return self.constant(node.payload)
        filler, line = uniform(values), counted(values)
        if filler is not None:
            return self.expand(self.constant(np.asarray(filler, node.dtype)), (), shape)
        if line is not None:
            return self._counted(line, shape, node)
        if node.shape == ():
            return self._shared(values, node)
        raise FixedSizeError("a constant array is another one for other batches.")

    def _counted(self, line: tuple[int, int], shape: Sizes, node: Node) -> str:
        (size,) = [n for n in shape if isinstance(n, Affine)]
        start, step = line
        end = self.node("Squeeze", self.whole([size * step + start]))
        one, by = self.constant(np.int64(start)), self.constant(np.int64(step))
        found = self.reshape(self.node("Range", one, end, by), (size,), shape)
        return found if node.dtype == np.int64 else self.cast(found, node.dtype)

    def _shared(self, values: Sequence[Any], node: Node) -> str:
        """A number that is shared out among the batch, 1 / n of a mean, or grows with it."""
        numbers = [float(v) for v in values]
        batches = self.known.batches
        size = self.cast(self.node("Squeeze", self.batch()), node.dtype)
        for op, found in (
            ("Div", [x * n for x, n in zip(numbers, batches)]),
            ("Mul", [x / n for x, n in zip(numbers, batches)]),
        ):
            if np.allclose(found, found[0], rtol=1e-6, atol=0.0):
                return self.node(op, self.constant(found[0], node.dtype), size)
        raise FixedSizeError(f"a number is {numbers} for batches of {batches}.")

    def used(self, outputs: Sequence[str]) -> list[Any]:
        """The nodes that outputs need, in order."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                kept.append(node)
                needed.update(node.input)
                needed.update(seen_inside(node))
        return kept[::-1]


def seen_inside(node: Any) -> set[str]:
    """Names of the graph around that bodies in a node use."""
    found: set[str] = set()
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.update(v.name for v in attribute.g.output)
            for inner in attribute.g.node:
                found.update(inner.input, seen_inside(inner))
    return found


def described(name: str, dtype: Any, shape: Sizes | None) -> Any:
    """A named value with its type; sizes that are the batch's have its name."""
    sizes: list[Any] | None = None
    if shape is not None:
        sizes = [
            (_BATCH if n == Affine(0, 1) else None) if isinstance(n, Affine) else n for n in shape
        ]
    return helper.make_tensor_value_info(name, TYPES[np.dtype(dtype)], sizes)
