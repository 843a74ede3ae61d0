"""What waits for the next update: gradients and counts of batches, summed in slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import CONST, Array, Graph
from gpubp.core.store import Slot, Zeros, siblings


class Sums:
    """What one term of the loss adds up between updates.

    Args:
        number: of the term.
        zeros: makes the sums' memory; default is memory of this process.

    Attributes:
        count: slot: what has counted since the last update.
        counted: there is a count; else the term is a sum by itself.
        of: by a parameter's id, the slot of its gradients' sum.
    """

    def __init__(self, number: int, zeros: Zeros | None = None) -> None:
        self._zeros = zeros
        self._suffix = f"_{number}" if number else ""
        self.count = Slot(f"count{self._suffix}", 0.0, np.float64)
        self.counted = False
        self.of: dict[int, Slot] = {}

    def beside(self, params: Sequence[Slot]) -> list[Slot]:
        """The sum of each parameter's gradients."""
        return beside(f"grad_sums{self._suffix}", params, self.of, self._zeros)

    def means(
        self,
        graph: Graph,
        params: Sequence[Slot],
        grads: Sequence[Array | None],
        count: Array | None,
        is_first: Array | None,
        final: bool,
    ) -> list[Array | None]:
        """Add a batch's gradients and count; the sums divided by what counts, None for none.

        `is_first`: nothing is there to add to; None where that always holds.
        """
        self.counted = count is not None
        reached = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
        self.beside([p for p, _ in reached])
        sums = {id(p): _added(is_first, self.of[id(p)], g) for p, g in reached}
        if not final:
            graph.writes += [(self.of[id(p)], sums[id(p)].node) for p, _ in reached]
        if count is not None:
            divisor = self._divisor(graph, count, is_first, final)
            sums = {key: ops.divide(s, divisor.astype(s.dtype)) for key, s in sums.items()}
        return [sums.get(id(p)) for p in params]

    def means_of_sums(
        self, params: Sequence[Slot], cut: Callable[[Slot, Any], Any] = lambda p, slot: slot
    ) -> list[Array | None]:
        """What the slots hold, divided by what counts; of parameters that have a sum.

        `cut`: what to take of the sum (or None) that belongs to a parameter.
        """
        found = [cut(p, self.of.get(id(p))) for p in params]
        if not self.counted:
            return [None if slot is None else ops.multiply(slot, 1.0) for slot in found]
        divisor = ops.where(ops.equal(self.count, 0.0), 1.0, self.count)
        return [None if s is None else ops.divide(s, divisor.astype(s.dtype)) for s in found]

    def _divisor(self, graph: Graph, count: Array, is_first: Array | None, final: bool) -> Array:
        """All that counts since the last update; 1 where nothing does (the sums are 0 then)."""
        counted = ops.astype(count, "float64")
        total = _added(is_first, self.count, counted)
        rest = ops.multiply(total, 0.0) if final else total
        graph.writes.append((self.count, rest.node))
        known: Array = ops.where(ops.equal(total, 0.0), 1.0, total)
        return total if count.node.spec is CONST else known


def _added(is_first: Array | None, total: Slot, new: Array) -> Array:
    if is_first is None:
        return new
    found: Array = ops.where(is_first, new, ops.add(total, new))
    return found


def beside(
    label: str, params: Sequence[Slot], known: dict[int, Slot], zeros: Zeros | None = None
) -> list[Slot]:
    """One array beside each parameter, made once and kept in `known`."""
    new = [p for p in params if id(p) not in known]
    known.update(zip(map(id, new), siblings(label, new, zeros=zeros), strict=True))
    return [known[id(p)] for p in params]
