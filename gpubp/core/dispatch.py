"""The active trace, and `bind`: an op is appended to it, or computed at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpubp.core.array import Array, concrete
from gpubp.core.graph import Graph
from gpubp.core.interop import on_device
from gpubp.core.spec import ArrayType, ConcreteArray, Kind, OpSpec
from gpubp.core.store import Slot
from gpubp.lazy import load


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
    an announcement (`gpubp.core.announce`), so whoever changes the state must make one. Attributes
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


class AtOnce:
    """Ops on arrays in a GPU's memory; filled in by a module that stands above, which is imported
    when the first of them is asked for (`gpubp/__init__.py` says which one).

    Attributes:
        apply: (spec, args, attrs, like=None) -> the result on the device.
        to_user_array: an array on the device as one of the library that results come in.
        put: (host array, array on a device) -> the first where the second is.
        assign: (slot, array on the device): the slot takes the value.
        call: (module, args) -> what it returns, as one program.
    """

    apply: Callable[..., Any]
    to_user_array: Callable[[Any], Any]
    put: Callable[[Any, Any], Any]
    assign: Callable[[Any, Any], None]
    call: Callable[[Any, Any], Any]

    def __getattr__(self, name: str) -> Any:
        if name not in AtOnce.__annotations__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        load("ops at once")
        return vars(self)[name]


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
    nodes = tuple(
        [a.node if type(a) is Array and a.graph is graph else graph.lift(a) for a in args]
    )
    return Array(graph, graph.add(spec, nodes, attrs))


def evaluate(spec: OpSpec, arrays: Sequence[ConcreteArray], attrs: dict[str, Any]) -> ConcreteArray:
    """Run the reference on concrete arrays, after the op's own checks."""
    out = spec.infer(*[ArrayType(a.shape, a.dtype) for a in arrays], **attrs)
    made = spec.reference(*arrays, **attrs)
    return made if spec.kind is Kind.LOOP else np.asarray(made, dtype=out.dtype)
