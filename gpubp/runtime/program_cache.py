"""Programs on demand: traced once for each set of input types, and again when a fact changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends import get_backend
from gpubp.backends.base import Backend
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.listing import PASSES, Watch, unwatched
from gpubp.compiler.pipeline import Options, compile_graph
from gpubp.compiler.program import Program
from gpubp.core import (
    Array,
    ArrayType,
    ConcreteArray,
    Graph,
    NumberType,
    Whole,
    WholeType,
    concrete,
)
from gpubp.core.forks import anew_in_child
from gpubp.core.interop import TO_HOST, on_device
from gpubp.core.store import pack
from gpubp.errors import ArgumentError, DataError, IndexRangeError, TraceError, unknown_name
from gpubp.runtime.nesting import nesting

InputType = ArrayType | NumberType | WholeType
LISTED = "encode"  # after the passes: what the backend makes of the program

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Ready:
    """A traced, compiled and loaded program, and the structure of what it returns."""

    graph: Graph
    structure: Any
    program: Program
    loaded: Any


class Runner:
    """Keeps the programs of one function.

    Args:
        trace: called with a tuple of input types and the structure of the arguments; returns
            (graph, structure of the outputs).
        backend, device: see `gpubp.backends.get_backend`.
        batched: the programs gather their inputs, but whole ones, by an index order.
        options: for the pipeline.
        name: for errors.

    Attributes:
        lock: programs have memory of their own, so one run at a time; see `nesting.turn`.
    """

    def __init__(
        self,
        trace: Callable[[tuple[Any, ...], Any], tuple[Graph, Any]],
        backend: str | Backend | None,
        device: str | None,
        batched: bool,
        options: Options | None,
        name: str = "a compiled function",
    ) -> None:
        self.name = name
        self.backend = get_backend(backend, device)
        self._trace = trace
        self._batched = batched
        self._options = options or Options()
        self._known: dict[tuple[Any, ...], Ready] = {}
        self.last: Ready | None = None
        self.lock = threading.RLock()
        anew_in_child(self)

    def start_anew(self) -> None:
        """In a forked child."""
        self.lock = threading.RLock()

    def get(self, types: tuple[InputType, ...], structure: Any = None) -> Ready:
        """The program for these input types, and arguments of this structure."""
        key = None if structure is None else repr(structure)
        ready = self._known.get((types, key))
        if ready is None or not ready.graph.still_valid():
            begin, again = time.perf_counter(), ready is not None
            graph, structure = self._trace(types, structure)
            program = self._compiled(graph, types)
            loaded = self.backend.load(program)
            if self._options.verifying:
                self.backend.check_writes(loaded)
            ready = Ready(graph, structure, program, loaded)
            nesting.possible = nesting.possible or graph.calls_python()
            self._known[types, key] = ready
            _LOG.debug(
                "%s was compiled%s for %s: %d instructions in %.1f ms",
                self.name,
                " again, for what its trace had read has changed" if again else "",
                self.backend.name,
                len(program.instructions),
                (time.perf_counter() - begin) * 1e3,
            )
        self.last = ready
        return ready

    def _compiled(
        self, graph: Graph, types: tuple[InputType, ...], watch: Watch = unwatched
    ) -> Program:
        pack("slots", graph.slots())
        pack("slots", [slot for slot, _ in graph.writes])
        backend = self.backend
        splits, wide = backend.splits_columns, backend.wide_rows
        batched: list[int] = []
        if self._batched:
            batched = [i for i, t in enumerate(types) if not isinstance(t, WholeType)]
        able = backend.runs_loops, backend.splits_sums
        return compile_graph(graph, batched, self._options, splits, wide, watch, *able)

    def explain(self, types: tuple[InputType, ...], structure: Any, after: str) -> str:
        """What a pass makes for these input types and arguments of this structure; nothing is run
        or kept.

        Raises:
            UnknownNameError: no such pass.
        """
        if after not in (*PASSES, LISTED):
            raise unknown_name("pass", after, [*PASSES, LISTED])
        found: dict[str, str] = {}

        def watch(name: str, text: Callable[[], str]) -> None:
            if name == after:
                found[name] = text()

        graph, _ = self._trace(types, structure)
        program = self._compiled(graph, types, watch)
        return found[after] if after in found else self.backend.listing(program)

    def readies(self) -> list[Ready]:
        """The programs that are up to date, in the order in which they were first needed."""
        return [ready for ready in self._known.values() if ready.graph.still_valid()]


def check_indices(
    program: Program, arrays: Sequence[ConcreteArray], names: Sequence[str] = ()
) -> None:
    """Refuse labels and indices out of range before any work is done.

    Args:
        program: that is about to run.
        arrays: its inputs.
        names: of these, for errors.

    Raises:
        IndexRangeError: says which argument holds what, where, and the allowed range.
    """
    for limit in program.index_limits:
        array = arrays[limit.input]
        if isinstance(array, DeviceArray):
            continue  # the kernel looks at each
        where = limit.bad(array)
        if where is not None:
            name = names[limit.input] if names else f"argument {limit.input}"
            raise IndexRangeError(
                f"{name} holds {array[where]} at index {where}; as a class label "
                f"or index it must be 0 to {limit.limit - 1}."
            )


def as_input(
    value: Any,
    name: str,
    floating: np.dtype[Any] | None = None,
    backend: Backend | None = None,
) -> Any:
    """A C-contiguous array of a supported dtype.

    Args:
        value: anything array-like.
        name: for errors.
        floating: convert float arrays to this dtype.
        backend: that will read it.

    Returns:
        A NumPy array, or a DeviceArray for an array on a GPU.

    Raises:
        DTypeError: not numbers, or numbers that gpubp cannot hold; see `interop.host_array`.
        DataError: it is on a GPU, and the backend reads the host's memory; elements are masked.
    """
    if isinstance(value, Array):
        raise TraceError(f"{name} is a traced array: call compiled functions outside of traces.")
    if isinstance(value, DeviceArray):
        return value
    if isinstance(value, Whole):
        raise ArgumentError(
            f"{name} is marked by gp.whole, which is for arguments of steps and of Trainer: pass "
            "the array itself here."
        )
    if on_device(value):
        if backend is None:
            raise DataError(
                f"{name} is on a GPU, but it is read from the host's memory here. Copy it with "
                f"{TO_HOST}."
            )
        return backend.import_array(value, name, floating)
    array: NDArray[Any] = np.asarray(value) if type(value) is float else concrete(value, name)
    target = floating if array.dtype.kind == "f" and floating is not None else array.dtype
    return np.asarray(array, dtype=target, order="C")
