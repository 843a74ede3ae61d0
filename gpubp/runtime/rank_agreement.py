"""Ranks agree before they train: the same program and data everywhere, and the state of rank 0."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend
from gpubp.core import Graph
from gpubp.core.store import Slot
from gpubp.distributed.agreement import fingerprint, require_alike, version
from gpubp.distributed.parallel import DataParallel
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.batches import Batches
from gpubp.runtime.update import UpdateBuilder

# Operations that come and go with the number of rows, such as where one row needs no broadcast.
OF_SHAPES = frozenset(
    {
        "input", "slot", "const", "cast", "reshape", "broadcast_to", "transpose", "slice", "sum",
        "add", "subtract", "multiply", "divide", "negative", "where", "equal",
    }
)  # fmt: skip


class Agreement:
    """What the ranks of a step have agreed on.

    Args:
        parallel: how they work together.
        update_builder: of the step.
        backend: that runs it.

    Attributes:
        made: they have agreed, and hold the same state.
    """

    def __init__(
        self, parallel: DataParallel, update_builder: UpdateBuilder, backend: Backend
    ) -> None:
        self._parallel, self._builder, self._backend = parallel, update_builder, backend
        self.made = False
        self._printed: dict[int, tuple[ReferenceType[Any], str]] = {}

    def make(
        self,
        data: Arguments,
        graphs: Sequence[Graph],
        ours: Sequence[Slot],
        also: Sequence[Slot] = (),
    ) -> None:
        """Compare the ranks' programs; then every slot takes the value that it has on rank 0.

        Args:
            data: of the first call.
            graphs: of the programs.
            ours: slots that belong to this rank alone.
            also: more slots that are everybody's.

        Raises:
            DistributedError: they differ; says in what.
        """
        mine = {id(slot) for slot in ours}
        found = [s for g in graphs for s in [*g.slots(), *[w for w, _ in g.writes]]] + [*also]
        slots = list({id(s): s for s in found if id(s) not in mine}.values())
        facts = {**self._facts(data, slots), "what the step computes": _operations(graphs[0])}
        require_alike(self._parallel.communicator, facts)
        self._take_over(slots)
        self.made = True

    def _facts(self, data: Arguments, slots: Sequence[Slot]) -> dict[str, str]:
        parallel, settings = self._parallel, self._builder.settings
        shared = [
            f"{name} {'whole ' if whole else ''}{array.shape[0 if whole else 1 :]} {array.dtype}"
            for name, array, whole in zip(data.names, data.arrays, data.whole, strict=True)
        ]
        numbers = {k: v for k, v in vars(settings).items() if isinstance(v, (int, float, str))}
        options = {k: v for k, v in vars(parallel).items() if k != "communicator"}
        optimizers = getattr(self._builder.optimizer, "members", [self._builder.optimizer])
        # State that is divided is not sent: who has loaded some must not be alone with that.
        steps = [o.steps_taken() for o in optimizers] if parallel.divides else []
        return {
            "the optimizer's steps": str(steps),
            "gpubp's version": version(),
            "the backend": f"{self._backend.name} ({self._backend.precision})",
            "the communicator": parallel.communicator.name,
            "the sharing": str(options),
            "the optimizer": type(self._builder.optimizer).__name__,
            "how the step updates": str(numbers),
            "the model's state": ", ".join(f"{s.name} {s.shape} {s.dtype}" for s in slots),
            "the data's kind": ", ".join(shared),
        }

    def _take_over(self, slots: Sequence[Slot]) -> None:
        values = [np.ascontiguousarray(s.value).reshape(-1).view(np.uint8) for s in slots]
        flat = np.concatenate(values) if values else np.zeros(0, np.uint8)
        self._parallel.communicator.broadcast(flat)
        if self._parallel.rank == 0:
            return
        start = 0
        for slot, value in zip(slots, values, strict=True):
            part = flat[start : start + value.size]
            slot.value = part.copy().view(slot.dtype).reshape(slot.shape)
            start += value.size

    def check_run(
        self, data: Arguments, order: NDArray[np.int64], batches: Batches, checked: bool
    ) -> None:
        """Compare what a run is to do: the batches, and with shared data these and their order.

        Args:
            data, order, batches: of the run.
            checked: the data are those of an earlier run, and have not changed.

        Raises:
            DistributedError: it differs; says in what.
        """
        facts: dict[str, Any] = {"the number of batches": len(batches.starts)}
        facts["the batches that update"] = _checksum(batches.final)
        if self._parallel.data == "shared":
            facts["the sizes of batches"] = _checksum(batches.sizes)
            facts["the order of samples"] = _checksum(order)
            for name, array in zip(data.names, data.arrays, strict=True):
                facts[name] = self._fingerprint(array, checked)
        require_alike(self._parallel.communicator, {k: str(v) for k, v in facts.items()})

    def _fingerprint(self, array: Any, known: bool) -> str:
        """Of an array; that of before if it is known, and has been seen."""
        seen, text = self._printed.get(id(array), (None, ""))
        if not known or seen is None or seen() is not array:
            text = fingerprint(array)
            self._printed = {k: v for k, v in self._printed.items() if v[0]() is not None}
            self._printed[id(array)] = weakref.ref(array), text
        return text


def _operations(graph: Graph) -> str:
    """The operations of a rank's piece, but for those that depend on its size."""
    found = [node for node in graph.nodes if node.spec.name not in OF_SHAPES]
    numbers = [[v for v in node.attrs.values() if isinstance(v, (float, str))] for node in found]
    told = zip(found, numbers, strict=True)
    return ", ".join(" ".join([n.spec.name, *map(str, given)]) for n, given in told)


def _checksum(array: NDArray[Any]) -> str:
    return f"checksum {zlib.crc32(array.tobytes()):08x}"
