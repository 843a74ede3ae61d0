"""The update half of a training step: what follows the loss in its trace.

Comes in: a graph that ends in the loss. Goes out: the same graph with gradients, clipping, the
optimiser's update, the schedule's move and the weights' average appended, as writes to slots.

With accumulation there are two kinds of programs. One adds a batch's gradient to sums; the other
does that too and then updates with the mean. A run is a sequence of both, so neither decides
anything while it runs. What is added is the gradient of sums, one for each term of the loss (see
`gpubp.runtime.totals`), and each is divided by what its term has counted since the last update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.compiler.grad import gradients
from gpubp.core import Array, Graph, Node
from gpubp.core.interop import host_array
from gpubp.core.store import Slot, pack
from gpubp.distributed.requests import zeros_for
from gpubp.errors import DataError, GradientError, ShapeError
from gpubp.ops.spec import cast_to
from gpubp.runtime.accumulation import Sums, beside
from gpubp.runtime.settings import Settings, StepOptimizer
from gpubp.runtime.totals import Term, mean_of_samples


class UpdateBuilder:
    """Appends updates to traces, and keeps what accumulates between them.

    Args:
        optimizer: whose parameters are trained.
        settings: how.
    """

    def __init__(self, optimizer: StepOptimizer, settings: Settings) -> None:
        self.optimizer = optimizer
        self.settings = settings
        self._grads: list[Slot] = []
        self._grad_of: dict[int, Slot] = {}
        self._terms: list[Sums] = []
        self._batches = Slot("batches", 0, np.int64)
        parallel = settings.parallel
        # What ranks send each other lies where the others find it, if they can.
        self._zeros = None if parallel is None else zeros_for(parallel.communicator)

    @property
    def grads(self) -> list[NDArray[Any]]:
        """The gradients of the last update, if they are kept."""
        return [slot.value for slot in self._grads]

    @property
    def pending(self) -> int:
        """Batches whose gradients wait for an update."""
        return int(self._batches.value)

    def state_dict(self) -> dict[str, Any]:
        """What waits for the next update: {"batches", "counts", "sums": [array, ...]} (copies).

        One count and one sum of each parameter's gradients for each term of the loss; None for a
        parameter that the term does not depend on.
        """
        if self.pending and self.settings.reduced:
            raise DataError(
                f"{self.pending} batches wait for an update, and their gradients are on several "
                "ranks: take the step's state after an update."
            )
        params = self.optimizer.parameters()
        terms = self._terms if self.pending else []
        slots = [term.of.get(id(p)) for term in terms for p in params]
        return {
            "batches": self.pending,
            "counts": [float(term.count.value) for term in terms],
            "sums": [None if slot is None else slot.value.copy() for slot in slots],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what waits for the next update; if it raises, nothing has changed.

        Raises:
            DataError: sums of another number of parameters, or as many batches as an update takes.
            ShapeError: a sum has not its parameter's shape.
        """
        batches = int(state_dict["batches"])
        params = list(self.optimizer.parameters()) if batches else []
        counts = list(state_dict["counts"]) if batches else []
        given = state_dict["sums"] if batches else []
        sums = [None if s is None else host_array(s, "a sum") for s in given]
        self._check_waiting(batches, params, counts, sums)
        pack("params", params, self._zeros)
        for i, count in enumerate(counts):
            term = self._term(i)
            term.count.value = np.float64(count)
            of_term = zip(params, sums[i * len(params) : (i + 1) * len(params)], strict=True)
            given = [(p, total) for p, total in of_term if total is not None]
            for (_, total), slot in zip(given, term.beside([p for p, _ in given]), strict=True):
                slot.value = total
        self._batches.value = np.int64(batches)

    def _check_waiting(
        self,
        batches: int,
        params: Sequence[Slot],
        counts: Sequence[Any],
        sums: Sequence[NDArray[Any] | None],
    ) -> None:
        if batches and not batches < self.settings.accumulate:
            raise DataError(
                f"{batches} batches wait in the state, but accumulate is "
                f"{self.settings.accumulate}."
            )
        wanted = len(params) * max(1, len(counts))
        if len(sums) != wanted:
            raise DataError(f"got sums of {len(sums)} gradients, expected {wanted}.")
        for param, total in zip(list(params) * len(counts), sums, strict=True):
            if total is not None and total.shape != param.shape:
                raise ShapeError(
                    f"{param.name}: its gradient's sum has shape {total.shape}, expected "
                    f"{param.shape}."
                )

    def append(
        self, graph: Graph, loss: Node, samples: int, terms: Sequence[Term], final: bool
    ) -> None:
        """Append gradients and what is done with them.

        Args:
            graph: whose trace ends in the loss.
            loss: a scalar.
            samples: in a batch.
            terms: of the loss; none for a mean over samples.
            final: update; else only add to the sums.
        """
        params = list(self.optimizer.parameters())
        pack("params", params, self._zeros)
        scale = self.settings.loss_scale
        if scale is not None:
            pack("loss_scale", [scale.scale, scale.good, scale.skipped])
            loss = graph.lift(scale.scaled(Array(graph, loss)))
        if self.settings.summed:
            if scale is not None:
                terms = [replace(t, total=scale.scaled(t.total)) for t in terms]
            terms = terms or [mean_of_samples(graph, loss, samples)]
            grads = self._accumulated(graph, params, terms, final)
        else:
            grads = self._reached(params, self._gradients(graph, loss, params))
        if final:
            self._update(graph, params, grads)

    def append_update_of_sums(
        self, graph: Graph, cut: Callable[[Slot, Any], Any] | None = None
    ) -> None:
        """Append the update with the gradients that have been summed in slots, of all batches since
        the last one; programs that only add must have been traced before.

        Args:
            graph: gets it.
            cut: what is to be updated of a parameter, of an array beside it; None for nothing.
                Default is to update all.
        """
        params = list(self.optimizer.parameters())
        grads = _together(params, [term.means_of_sums(params) for term in self._terms])
        if self.settings.accumulate > 1:
            graph.writes.append((self._batches, ops.multiply(self._batches, 0).node))
        lifted = [None if g is None else Array(graph, graph.lift(g)) for g in grads]
        whole = self._reached(params, lifted)
        if cut is None:
            self._update(graph, params, whole)
            return
        parts = _together(params, [term.means_of_sums(params, cut) for term in self._terms])
        there = [(p, Array(graph, graph.lift(g))) for p, g in zip(params, parts) if g is not None]
        self._update(graph, params, whole, there)

    @property
    def sums(self) -> list[Sums]:
        """What is summed between updates, a term of the loss each."""
        return self._terms

    @property
    def waiting(self) -> Slot:
        """int64 scalar: how many batches wait for an update, with accumulation."""
        return self._batches

    def _check_whole(self, whole: bool) -> None:
        """Raise DataError where the optimiser has a part of its state, and all is to be updated."""
        for member in getattr(self.optimizer, "members", [self.optimizer]):
            if whole and getattr(member, "pieces", None) is not None:
                raise DataError(
                    "the optimizer's state is divided among ranks by another step "
                    "(shard_optimizer=True): give this step the same DataParallel."
                )

    def _gradients(self, graph: Graph, loss: Node, params: Sequence[Slot]) -> list[Array | None]:
        found = gradients(graph, loss, [graph.leaf(p) for p in params])
        return [None if g is None else Array(graph, g) for g in found]

    def _reached(self, params: Sequence[Slot], grads: Sequence[Array | None]) -> list[Array]:
        """The gradients, none missing."""
        lost = [p.name for p, g in zip(params, grads, strict=True) if g is None]
        if lost:
            raise GradientError(
                f"these parameters do not reach the loss: {', '.join(lost)}. Use them in the "
                "loss, or leave them out of the optimizer."
            )
        return [g for g in grads if g is not None]

    def _term(self, i: int) -> Sums:
        while len(self._terms) <= i:
            self._terms.append(Sums(len(self._terms), self._zeros))
        return self._terms[i]

    def _accumulated(
        self, graph: Graph, params: Sequence[Slot], terms: Sequence[Term], final: bool
    ) -> list[Array]:
        """The gradient of all batches since the last update, as of one; the sums are written."""
        alone = self.settings.accumulate == 1
        is_first = None if alone else ops.equal(self._batches, 0)
        means = []
        for i, term in enumerate(terms):
            found = self._gradients(graph, graph.lift(term.total), params)
            means.append(self._term(i).means(graph, params, found, term.count, is_first, final))
        if not alone:
            batches = ops.multiply(self._batches, 0) if final else ops.add(self._batches, 1)
            graph.writes.append((self._batches, batches.node))
        return self._reached(params, _together(params, means))

    def _update(
        self,
        graph: Graph,
        params: Sequence[Slot],
        grads: list[Array],
        parts: Sequence[tuple[Slot, Array]] | None = None,
    ) -> None:
        """`parts`: parameters and the gradient of what is to be updated of them, if not all is."""
        settings, finite = self.settings, None
        self._check_whole(parts is None)
        self.optimizer.prepare()
        mine = [p for p, _ in parts] if parts is not None else list(params)
        own = [g for _, g in parts] if parts is not None else grads
        if settings.loss_scale is not None:
            grads, finite = settings.loss_scale.unscaled(grads)
            own = grads if parts is None else settings.loss_scale.unscaled(own)[0] if own else []
        if settings.keep_grads or settings.max_grad_norm is not None:
            self._grads = beside("grads", params, self._grad_of)
            graph.writes += [(slot, g.node) for slot, g in zip(self._grads, grads)]
        if settings.max_grad_value is not None:
            grads, own = (clip_by_value(found, settings.max_grad_value) for found in (grads, own))
        if settings.max_grad_norm is not None:
            own = scaled_to_norm(own, grads, settings.max_grad_norm)
        writes = self.optimizer.emit({id(p): g for p, g in zip(mine, own)})
        if settings.ema is not None:
            writes = writes + settings.ema.emit({id(slot): value for slot, value in writes})
        if settings.scheduler is not None:
            writes = writes + settings.scheduler.table.emit()
        if settings.loss_scale is not None and finite is not None:
            writes = [(slot, ops.where(finite, value, slot)) for slot, value in writes]
            writes += settings.loss_scale.emit(finite)
        made = [(slot, graph.lift(cast_to(value, slot.dtype))) for slot, value in writes]
        known = {id(slot) for slot, _ in made}  # a look-up may have shortened rows before
        graph.writes = [(s, n) for s, n in graph.writes if id(s) not in known] + made


def _together(params: Sequence[Slot], terms: Sequence[Sequence[Any]]) -> list[Any]:
    """For each parameter, the sum of what there is of the terms; None for none."""
    grads: list[Any] = [None] * len(params)
    for found in terms:
        grads = [
            a if b is None else b if a is None else ops.add(a, b) for a, b in zip(grads, found)
        ]
    return grads


def clip_by_value(grads: Sequence[Array], limit: float) -> list[Array]:
    """Each element limited to [-limit, limit], as torch.nn.utils.clip_grad_value_."""
    return [ops.clip(g, -limit, limit) for g in grads]


def scaled_to_norm(parts: Sequence[Array], grads: Sequence[Array], max_norm: float) -> list[Array]:
    """Scale parts of gradients so that the gradients' joint Euclidean norm is at most `max_norm`.

    The factor is min(1, max_norm / (norm + 1e-6)), as in torch.nn.utils.clip_grad_norm_ (Pascanu et
    al., "On the difficulty of training recurrent neural networks", 2013).
    """
    total = ops.sum(ops.square(grads[0]))
    for g in grads[1:]:
        total = total + ops.sum(ops.square(g)).astype(total.dtype)
    factor = ops.minimum(max_norm / (ops.sqrt(total) + 1e-6), 1.0)
    return [g * factor.astype(g.dtype) for g in parts]


def clip_by_global_norm(grads: Sequence[Array], max_norm: float) -> list[Array]:
    """Scale gradients so that their joint Euclidean norm is at most `max_norm`."""
    return scaled_to_norm(grads, grads, max_norm)
