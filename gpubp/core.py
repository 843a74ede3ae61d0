"""What every op stands on: op specs, traced arrays, the graph, and `bind`.

Comes in: calls of `gp.ops.*` on NumPy arrays, slots (parameters) and traced arrays.
Goes out: a NumPy array where everything was concrete, else a traced `Array` whose `Node` stands at
the end of the active `Graph`.

Holds in between: a graph is in SSA form and in topological order by construction; every node has
one output with a static shape and dtype; equal nodes are one node (same op, inputs, attributes);
scalar arithmetic on constants is done at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError, DTypeError, TraceError
from gpubp.facts import Facts
from gpubp.interop import host_array, on_device
from gpubp.keys import exact
from gpubp.operators import Operators
from gpubp.store import Slot

DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(name) for name in ("bool", "int32", "int64", "float32", "float64")
)
Shape: TypeAlias = tuple[int, ...]
ConcreteArray: TypeAlias = NDArray[Any]


class ArrayType(NamedTuple):
    """The static type of a value: what shape rules take and give."""

    shape: Shape
    dtype: np.dtype[Any]


class NumberType(NamedTuple):
    """The type of an argument that is a Python float: it takes the dtype of what it meets."""

    shape: Shape = ()
    dtype: np.dtype[Any] = np.dtype(np.float64)
    weak: bool = True


class Typed(Protocol):
    """Anything with a shape and a dtype: a node, an array, a slot."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


class Kind(Enum):
    """How the compiler may treat an op."""

    LEAF = "leaf"  # input, constant, slot: no computation
    VIEW = "view"  # the same memory read through other strides
    ELEMENTWISE = "elementwise"  # output[i] from inputs[i], inputs broadcast
    REDUCE = "reduce"  # over the axes in attrs["axis"], kept as 1 if attrs["keepdims"]
    MATMUL = "matmul"  # (..., M, K) @ (..., K, N)
    ROWWISE = "rowwise"  # independent along the first axis
    MOVE = "move"  # indexed data movement: concat, gather, scatter
    RANDOM = "random"  # element-wise from a generator's state: input 0 is (seed, counter) int64[2]
    CUSTOM = "custom"  # the user's own: a black box run by one worker


@dataclass(frozen=True, eq=False, slots=True)
class OpSpec:
    """One kernel-level op: all that the pipeline knows about it.

    Attributes:
        name: unique; the name used in graphs, programs and reports.
        kind: how it may be fused.
        infer: (*types, **attrs) -> ArrayType; raises ShapeError or DTypeError on misuse.
        reference: (*arrays, **attrs) -> array; the definition of the op, in NumPy. Never writes
            into its inputs.
        vjp: (cotangent, output, *inputs, **attrs) -> one cotangent (or None) for each input, all
            traced arrays; None where the op has no gradient.
        flops: arithmetic per output element, for reports (matmul and reductions count by size).
        cuda: of a custom op: CUDA source of its function, if the user gave one.
    """

    name: str
    kind: Kind
    infer: Callable[..., ArrayType]
    reference: Callable[..., Any]
    vjp: Callable[..., Sequence[Array | None]] | None = None
    flops: float = 1.0
    cuda: str | None = None

    def __repr__(self) -> str:
        return f"OpSpec({self.name})"


def _leaf(name: str) -> OpSpec:
    def infer(**_: Any) -> ArrayType:
        raise TypeError(f"{name} is a leaf: its type is given, not inferred")

    return OpSpec(name, Kind.LEAF, infer, infer, flops=0.0)


INPUT = _leaf("input")
CONST = _leaf("const")
SLOT = _leaf("slot")


def _alias_infer(x: Typed, **_: Any) -> ArrayType:
    return ArrayType(x.shape, x.dtype)


# A second name for a value: differentiating by it ignores every other use of the value.
ALIAS = OpSpec(
    "alias", Kind.VIEW, _alias_infer, lambda x, tag: x, lambda g, y, x, tag: (g,), flops=0.0
)


@dataclass(eq=False, slots=True)
class Node:
    """One op applied to nodes: a value of the graph.

    `payload` is set on leaves: the input's position, the constant array, or the slot. A `weak` one
    is made of Python's floats alone; see `gpubp.ops.weak`.
    """

    spec: OpSpec
    inputs: tuple[Node, ...]
    attrs: dict[str, Any]
    shape: Shape
    dtype: np.dtype[Any]
    index: int
    payload: Any = None
    weak: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_leaf(self) -> bool:
        return self.spec.kind is Kind.LEAF

    def __repr__(self) -> str:
        args = ", ".join(f"%{i.index}" for i in self.inputs)
        attrs = "".join(f", {k}={v!r}" for k, v in self.attrs.items())
        leaf = ""
        if isinstance(self.payload, Slot):
            leaf = self.payload.name
        elif self.is_leaf:
            leaf = str(self.payload) if self.size <= 1 else "..."
        return f"%{self.index} = {self.spec.name}({args}{attrs}{leaf}) : {describe(self)}"


def describe(value: Typed) -> str:
    """`float32[200, 64]`: how types are written everywhere."""
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


class Graph:
    """An append-only list of nodes.

    Attributes:
        nodes: all nodes, topologically ordered.
        inputs: the INPUT leaves, in call order.
        outputs: what the program returns.
        writes: (slot, node): at the end, `slot` takes the node's value.
        facts: what was read of Python's state while tracing.
        ratios: by the index of a node that is a mean over a count, (sum, count); the count is None
            where the node is a sum; see `gpubp.totals`.
        notes: what a loss says about the model's outputs; see `note`.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: list[Node] = []
        self.outputs: list[Node] = []
        self.writes: list[tuple[Slot, Node]] = []
        self.random_streams = 0
        self.facts = Facts()
        self.ratios: dict[int, tuple[Node, Node | None]] = {}
        self.notes: dict[str, Any] = {}
        self._known: dict[Any, Node] = {}
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
        data = value.tobytes()
        # The checksum finds what may be equal, the comparison says whether it is.
        known = self._constants.setdefault((value.shape, dtype, weak, crc32(data)), [])
        for content, node in known:
            if content == data:
                return node
        own: ConcreteArray = np.ndarray(value.shape, dtype, data)
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
        return node

    def assign(self, slot: Slot, node: Node) -> None:
        """`slot` takes the node's value at the end; what is read from now on is that value."""
        self.writes = [(s, n) for s, n in self.writes if s is not slot] + [(slot, node)]
        self._known[(SLOT, id(slot))] = node

    def still_valid(self) -> bool:
        """Everything that was read while tracing is as it was."""
        return self.facts.hold()

    def calls_python(self) -> bool:
        """There is an op of the user's in it."""
        return any(n.spec.kind is Kind.CUSTOM for n in self.nodes)

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
    if spec.kind is Kind.CUSTOM or spec.name == "cast":
        return False
    return all(n.weak for n in inputs if n.dtype.kind == "f")


def _foldable(spec: OpSpec, inputs: tuple[Node, ...], out: ArrayType, weak: bool) -> bool:
    return (
        (out.shape == () or weak)
        and spec is not ALIAS
        and (weak or spec.kind in (Kind.ELEMENTWISE, Kind.VIEW))
        and bool(inputs)
        and all(n.spec is CONST for n in inputs)
    )


class Array(Operators):
    """A value known by shape and dtype only, while a function is being traced.

    It takes part in arithmetic like a NumPy array; its numbers exist only when the compiled program
    runs. So Python that needs the numbers (`if x > 0`, `float(x)`, `np.sin(x)`) cannot be traced.
    """

    __slots__ = ("graph", "node")

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return len(self.node.shape)

    @property
    def size(self) -> int:
        return self.node.size

    def __len__(self) -> int:
        if not self.shape:
            raise TraceError("a traced scalar has no len(): its shape is ().")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Array({describe(self)}, traced)"

    def __eq__(self, other: object) -> Any:
        return self.functions["equal"](self, other)

    def __ne__(self, other: object) -> Any:
        return self.functions["not_equal"](self, other)

    __hash__ = object.__hash__

    def _value_needed(self, what: str, instead: str) -> TraceError:
        return TraceError(
            f"{what} needs the numbers of a traced array {describe(self)}, which exist only when "
            f"the compiled program runs. {instead}"
        )

    def _constant(self) -> Any:
        """The number, where it is known while tracing: made of Python's numbers alone."""
        return self.node.payload if self.node.spec is CONST else None

    def __bool__(self) -> bool:
        if self._constant() is not None:
            return bool(self._constant())
        raise self._value_needed(
            "a Python condition (if, while, and, or, not, max(), sorted())",
            "Use gp.ops.where(condition, a, b), or gp.ops.maximum/minimum/logical_and.",
        )

    def __float__(self) -> float:
        if self._constant() is not None:
            return float(self._constant())
        raise self._value_needed("float()", "Keep it as an array, or return it from the function.")

    def __int__(self) -> int:
        if self._constant() is not None:
            return int(self._constant())
        raise self._value_needed("int()", "Keep it as an array, or return it from the function.")

    def __index__(self) -> int:
        raise self._value_needed("indexing by it", "Use gp.ops.gather(x, indices).")

    def __array__(self, *_: Any, **__: Any) -> ConcreteArray:
        if self._constant() is not None:
            return np.array(self._constant())
        raise self._value_needed("a NumPy function", "Use the function of that name in gp.ops.")

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        # A NumPy array on the left of an operator asks here before it asks the reflected method.
        name = "divide" if ufunc is np.true_divide else ufunc.__name__
        if method == "__call__" and not kwargs and name in self.functions:
            return self.functions[name](*args)
        if kwargs.get("out") is not None:
            raise TraceError(
                f"np.{name} cannot write {describe(self)}, which is traced, into a NumPy array. "
                "Write a = a + b instead of a += b, and leave out=... away."
            )
        known = [a._constant() if isinstance(a, Array) else a for a in args]
        if method == "__call__" and all(a is not None for a in known):
            found = np.asarray(ufunc(*known, **kwargs))
            weak = found.dtype == np.float64
            return Array(self.graph, self.graph.constant(found, weak)) if weak else found
        raise self._value_needed(f"np.{name}", "Use the function of that name in gp.ops.")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        known = {np.shape: self.shape, np.ndim: self.ndim, np.size: self.size}
        if func in known and len(args) == 1 and not kwargs:
            return known[func]
        name = func.__name__
        raise self._value_needed(f"np.{name}", "Use the function of that name in gp.ops.")


class _Active(threading.local):
    graph: Graph | None = None


_active = _Active()


def active_graph() -> Graph | None:
    """The graph being traced in this thread, if any."""
    return _active.graph


@contextmanager
def tracing(graph: Graph) -> Iterator[Graph]:
    """Make `graph` the one that ops append to."""
    outer, _active.graph = _active.graph, graph
    try:
        yield graph
    finally:
        _active.graph = outer


def assume(fact: Callable[[], object]) -> None:
    """Note Python state that the trace depends on: a function that looks at it.

    A program is traced again when the function no longer returns the same. It is asked only after
    an announcement (`gpubp.announce`), so whoever changes the state must make one. Attributes
    of modules, and those that are declared as `Noted`, do all this by themselves.
    """
    if _active.graph is not None:
        _active.graph.facts.assume(fact)


def note(name: str, value: Any) -> None:
    """Tell who traces what a function knows of its arguments; the first to say it is heard.

    A loss so says that outputs are logits, however deep in a user's function it is called.
    """
    graph = _active.graph
    if graph is not None:
        graph.notes.setdefault(name, value)


def _not_filled_in(*_: Any) -> Any:
    raise TypeError("gpubp.eager has not been imported")


@dataclass
class AtOnce:
    """Ops on arrays in a GPU's memory; filled in by `gpubp.eager`, which stands above this file.

    Attributes:
        apply: (spec, args, attrs, like=None) -> the result on the device.
        native: an array on the device as one of the library that results come in.
        put: (host array, array on a device) -> the first where the second is.
        assign: (slot, array on the device): the slot takes the value.
        call: (module, args) -> what it returns, as one program.
    """

    apply: Callable[..., Any] = _not_filled_in
    native: Callable[[Any], Any] = _not_filled_in
    put: Callable[[Any, Any], Any] = _not_filled_in
    assign: Callable[[Any, Any], None] = _not_filled_in
    call: Callable[[Any, Any], Any] = _not_filled_in


at_once = AtOnce()


def bind(spec: OpSpec, *args: Any, **attrs: Any) -> Any:
    """Apply an op: append it to the active graph, or compute it at once if all is concrete.

    Args:
        spec: the op.
        *args: traced arrays, slots, NumPy arrays or numbers, already of dtypes the op accepts.
        **attrs: hashable static attributes.

    Returns:
        A traced `Array`, a NumPy array, or an array on the device where an argument is there.
    """
    graph = _active.graph
    if graph is None or not any(isinstance(a, (Array, Slot)) for a in args):
        if graph is None and any(on_device(a) for a in args):
            return at_once.apply(spec, args, attrs)
        return evaluate(spec, [concrete(a) for a in args], attrs)
    nodes = tuple([graph.lift(a) for a in args])
    return Array(graph, graph.add(spec, nodes, attrs))


def evaluate(spec: OpSpec, arrays: Sequence[ConcreteArray], attrs: dict[str, Any]) -> ConcreteArray:
    """Run the reference on concrete arrays, after the op's own checks."""
    out = spec.infer(*[ArrayType(a.shape, a.dtype) for a in arrays], **attrs)
    return np.asarray(spec.reference(*arrays, **attrs), dtype=out.dtype)


def concrete(value: Any, name: str = "an argument") -> ConcreteArray:
    """A NumPy array from anything array-like that is not traced; no copy where none is needed.

    Raises:
        TraceError: a traced array.
        DataError, DTypeError: what `gpubp.interop.host_array` refuses, or an array on a GPU.
    """
    if isinstance(value, Array):
        raise TraceError(
            f"a traced array {describe(value)} was used outside the function it was traced in. "
            "Return it from that function instead of keeping it."
        )
    if isinstance(value, Slot):
        return value.value
    if not isinstance(value, np.ndarray) and on_device(value):
        raise DataError(
            f"a {type(value).__name__} on a GPU was used as a constant of a traced function, "
            "or where a host array is needed. Pass it as an argument, or copy it with .get()."
        )
    array = host_array(value, name)
    python_float = isinstance(value, float) and not isinstance(value, np.generic)
    return array.astype(np.float32) if python_float else array


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """The NumPy dtype, if gpubp has it."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError as err:
        raise DTypeError(f"{dtype!r} is not a dtype.") from err
    if found not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise DTypeError(f"dtype {found} is not supported; convert to one of {names}.")
    return found
