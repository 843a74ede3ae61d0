"""Ranks agree before they train: the same program and data everywhere, and the state of rank 0."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ReferenceType

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend
from gpubp.core import Graph
from gpubp.core.store import Slot
from gpubp.distributed.agreement import fingerprint, require_alike, version
from gpubp.distributed.parallel import DataParallel
from gpubp.errors import DistributedError
from gpubp.runtime import rank_digest
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.batches import Batches
from gpubp.runtime.rank_facts import facts_of_update, seeds_of
from gpubp.runtime.update import UpdateBuilder

# Relative and absolute: constants that processors have rounded differently are the same.
ROUNDING = 1e-5, 1e-15


class Traces:
    """What the ranks of a step compare of their programs.

    Args:
        of_size: traces the program for a piece of so many samples.
        size: of a piece of this rank's.
        graphs: of the programs that it will run.
        update: of the one that updates, where that is apart and the same on all ranks.
    """

    def __init__(
        self,
        of_size: Callable[[int], Graph],
        size: int,
        graphs: Sequence[Graph],
        update: Graph | None = None,
    ) -> None:
        self.of_size, self.size, self.graphs, self.update = of_size, size, graphs, update

    def slots(self, also: Sequence[Slot]) -> list[Slot]:
        """All that the programs read and write, and more slots; each once."""
        graphs = [*self.graphs, *([] if self.update is None else [self.update])]
        found = [s for g in graphs for s in [*g.slots(), *[w for w, _ in g.writes]]]
        return list({id(s): s for s in [*found, *also]}.values())


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
        self._compared: Graph | None = None
        self._printed: dict[int, tuple[ReferenceType[Any], str]] = {}

    def any_stale(self) -> bool:
        """On some rank, what was compared is not what would be traced now."""
        compared = self._compared
        stale = np.array([compared is not None and not compared.still_valid()], np.float64)
        self._parallel.communicator.all_reduce(stale)
        return bool(stale[0] > 0)

    def make(
        self,
        data: Arguments,
        traces: Traces,
        ours: Sequence[Slot],
        also: Sequence[Slot] = (),
    ) -> None:
        """Compare the ranks' programs; then every slot takes the value that it has on rank 0.

        Pieces differ in size between ranks, and what is traced depends on that: so all trace the
        program for a piece of rank 0's size, which is thrown away.

        Args:
            data: of the first call.
            traces: of the programs.
            ours: slots that belong to this rank alone.
            also: more slots that are everybody's.

        Raises:
            DistributedError: they differ; says in what.
        """
        mine = {id(slot) for slot in ours}
        slots = [slot for slot in traces.slots(also) if id(slot) not in mine]
        require_alike(self._parallel.communicator, self._facts(data, slots))
        size = np.array([traces.size], np.int64)
        self._parallel.communicator.broadcast(size)
        self._compared = traces.of_size(int(size[0]))
        self._compare("what the step computes", self._compared)
        if traces.update is not None:
            self._compare("how the step updates", traces.update)
        self._take_over(slots)
        self.made = True

    def _compare(self, name: str, graph: Graph) -> None:
        """Raise DistributedError on every rank where the ranks' traces are not the same program."""
        communicator, digest = self._parallel.communicator, rank_digest.digest(graph)
        try:
            require_alike(communicator, {name: digest})
        except DistributedError:
            require_alike(communicator, {name: rank_digest.operations(graph)})
            raise
        mine = rank_digest.constants(graph)
        if mine.size:
            first = mine.copy()
            communicator.broadcast(first)
            odd = np.flatnonzero(~np.isclose(mine, first, *ROUNDING, equal_nan=True))
            places = communicator.gather(odd[:1] if odd.size else np.array([-1]))
            if (places >= 0).any():
                value = mine[places[places >= 0][0]]
                require_alike(communicator, {f"a constant in {name}": rank_digest.number(value)})

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
            "the optimizer": ", ".join(type(o).__name__ for o in optimizers),
            "how the step updates": str(numbers),
            "the model's state": ", ".join(f"{s.name} {s.shape} {s.dtype}" for s in slots),
            "the data's kind": ", ".join(shared),
            "the seed of random numbers": seeds_of(slots),
            **facts_of_update(self._builder.optimizer, settings),
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
        """Compare what a run is to do: the batches, and with shared data these and their order;
        and the options of updates, which may have been set since the last one.

        Args:
            data, order, batches: of the run.
            checked: the data are those of an earlier run, and have not changed.

        Raises:
            DistributedError: it differs; says in what.
        """
        facts: dict[str, Any] = {"the number of batches": len(batches.starts)}
        facts["the batches that update"] = _checksum(batches.final)
        facts |= facts_of_update(self._builder.optimizer, self._builder.settings)
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


def _checksum(array: NDArray[Any]) -> str:
    return f"checksum {rank_digest.hashed(array)}"
