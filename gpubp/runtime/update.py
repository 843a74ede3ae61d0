"""The update half of a training step: what follows the loss in its trace.

Comes in: a graph that ends in the loss. Goes out: the same graph with gradients, clipping, the
optimiser's update, the schedule's move and the weights' average appended, as writes to slots.

With accumulation there are two kinds of programs. One adds a batch's gradient to sums; the other
does that too and then updates with the mean. A run is a sequence of both, so neither decides
anything while it runs. What is added is the gradient of sums, one for each term of the loss (see
`gpubp.runtime.totals`), and each is divided by what its term has counted since the last update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.arguments import shown
from gpubp.compiler.grad import gradients
from gpubp.core import CONST, Array, Graph, Node
from gpubp.core.interop import host_array
from gpubp.core.store import Slot, pack, siblings
from gpubp.errors import ArgumentError, DataError, GradientError, ShapeError
from gpubp.ops.spec import cast_to
from gpubp.runtime.loss_scale import LossScale
from gpubp.runtime.totals import Term, mean_of_samples

Writes = list[tuple[Slot, Array]]


class StepOptimizer(Protocol):
    """What a step needs of an optimiser; see `gpubp.optim.Optimizer`."""

    def parameters(self) -> Sequence[Slot]: ...

    def prepare(self) -> None: ...

    def emit(self, grads: dict[int, Array]) -> Writes: ...


class StepTable(Protocol):
    """What a step needs of a schedule's table; see `gpubp.optim.lr_scheduler.table`."""

    capacity: int

    def emit(self) -> Writes: ...

    def moving(self, updates: int) -> AbstractContextManager[None]: ...


class StepScheduler(Protocol):
    """What a step needs of a schedule; see `gpubp.optim.lr_scheduler.LRScheduler`."""

    optimizer: Any
    last_epoch: int

    @property
    def table(self) -> StepTable: ...

    def require(self, epoch: int) -> None: ...


class StepAverage(Protocol):
    """What a step needs of an average of weights; see `gpubp.optim.EMA`."""

    @property
    def applied(self) -> bool: ...

    def emit(self, new: dict[int, Array]) -> Writes: ...


@dataclass(frozen=True)
class Settings:
    """How a step updates; the arguments of `compile_step`.

    Raises:
        DataError: one of them is out of its range.
    """

    max_grad_norm: float | None = None
    max_grad_value: float | None = None
    keep_grads: bool = False
    accumulate: int = 1
    scheduler: StepScheduler | None = None
    ema: StepAverage | None = None
    loss_scale: LossScale | None = None

    @property
    def plain(self) -> bool:
        """Nothing is to be done before or after a call of the program."""
        return self.scheduler is None and self.ema is None

    def check(self, optimizer: StepOptimizer) -> None:
        """Raise DataError if a setting is out of its range or does not fit the optimiser."""
        for name in ("max_grad_norm", "max_grad_value"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"{name} is {value}, expected a number above 0.")
        require_count("accumulate", self.accumulate)
        if self.loss_scale is not None and self.accumulate > 1:
            raise DataError(
                "loss_scale and accumulate cannot be used together yet: leave one of them out."
            )
        if self.ema is not None and not hasattr(self.ema, "emit"):
            raise ArgumentError(f"ema is {shown(self.ema)}, expected a gpubp.optim.EMA.")
        if self.scheduler is None:
            return
        if not hasattr(self.scheduler, "table"):
            raise DataError(
                f"{type(self.scheduler).__name__} cannot run inside the program: its step() needs "
                "a metric. Call it between runs."
            )
        if getattr(self.scheduler, "optimizer", None) is not optimizer:
            raise DataError("the scheduler was made for another optimizer than the step's.")


class Updater:
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
        self._terms: list[_Sums] = []
        self._batches = Slot("batches", 0, np.int64)

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
        pack("params", params)
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
        pack("params", params)
        scale = self.settings.loss_scale
        if scale is not None:
            pack("loss_scale", [scale.scale, scale.good, scale.skipped])
            loss = graph.lift(scale.scaled(Array(graph, loss)))
        if self.settings.accumulate > 1:
            terms = terms or [mean_of_samples(graph, loss, samples)]
            grads = self._accumulated(graph, params, terms, final)
        else:
            grads = self._reached(params, self._gradients(graph, loss, params))
        if final:
            self._update(graph, params, grads)

    def _gradients(self, graph: Graph, loss: Node, params: Sequence[Slot]) -> list[Array | None]:
        found = gradients(graph, loss, [graph.slot(p) for p in params])
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

    def _term(self, i: int) -> _Sums:
        while len(self._terms) <= i:
            self._terms.append(_Sums(len(self._terms)))
        return self._terms[i]

    def _accumulated(
        self, graph: Graph, params: Sequence[Slot], terms: Sequence[Term], final: bool
    ) -> list[Array]:
        """The gradient of all batches since the last update, as of one; the sums are written."""
        is_first = ops.equal(self._batches, 0)
        grads: list[Array | None] = [None] * len(params)
        for i, term in enumerate(terms):
            found = self._gradients(graph, graph.lift(term.total), params)
            means = self._term(i).means(graph, params, found, term.count, is_first, final)
            grads = [a if b is None else b if a is None else a + b for a, b in zip(grads, means)]
        batches = ops.multiply(self._batches, 0) if final else ops.add(self._batches, 1)
        graph.writes.append((self._batches, batches.node))
        return self._reached(params, grads)

    def _update(self, graph: Graph, params: Sequence[Slot], grads: list[Array]) -> None:
        settings, finite = self.settings, None
        self.optimizer.prepare()
        if settings.loss_scale is not None:
            grads, finite = settings.loss_scale.unscaled(grads)
        if settings.keep_grads or settings.max_grad_norm is not None:
            self._grads = _beside("grads", params, self._grad_of)
            graph.writes += [(slot, g.node) for slot, g in zip(self._grads, grads)]
        if settings.max_grad_value is not None:
            grads = clip_by_value(grads, settings.max_grad_value)
        if settings.max_grad_norm is not None:
            grads = clip_by_global_norm(grads, settings.max_grad_norm)
        writes = self.optimizer.emit({id(p): g for p, g in zip(params, grads)})
        if settings.ema is not None:
            writes = writes + settings.ema.emit({id(slot): value for slot, value in writes})
        if settings.scheduler is not None:
            writes = writes + settings.scheduler.table.emit()
        if settings.loss_scale is not None and finite is not None:
            writes = [(slot, ops.where(finite, value, slot)) for slot, value in writes]
            writes += settings.loss_scale.emit(finite)
        graph.writes += [(slot, graph.lift(cast_to(value, slot.dtype))) for slot, value in writes]


class _Sums:
    """What one term of the loss adds up between updates.

    Args:
        number: of the term.

    Attributes:
        count: slot: what has counted since the last update.
        of: by a parameter's id, the slot of its gradients' sum.
    """

    def __init__(self, number: int) -> None:
        self._suffix = f"_{number}" if number else ""
        self.count = Slot(f"count{self._suffix}", 0.0, np.float64)
        self.of: dict[int, Slot] = {}

    def beside(self, params: Sequence[Slot]) -> list[Slot]:
        """The sum of each parameter's gradients."""
        return _beside(f"grad_sums{self._suffix}", params, self.of)

    def means(
        self,
        graph: Graph,
        params: Sequence[Slot],
        grads: Sequence[Array | None],
        count: Array | None,
        is_first: Array,
        final: bool,
    ) -> list[Array | None]:
        """Add a batch's gradients and count; the sums divided by what counts, None for none."""
        reached = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
        self.beside([p for p, _ in reached])
        sums = {id(p): ops.where(is_first, g, ops.add(self.of[id(p)], g)) for p, g in reached}
        if not final:
            graph.writes += [(self.of[id(p)], sums[id(p)].node) for p, _ in reached]
        if count is not None:
            divisor = self._divisor(graph, count, is_first, final)
            sums = {key: ops.divide(s, divisor.astype(s.dtype)) for key, s in sums.items()}
        return [sums.get(id(p)) for p in params]

    def _divisor(self, graph: Graph, count: Array, is_first: Array, final: bool) -> Array:
        """All that counts since the last update; 1 where nothing does (the sums are 0 then)."""
        counted = ops.astype(count, "float64")
        total = ops.where(is_first, counted, ops.add(self.count, counted))
        rest = ops.multiply(total, 0.0) if final else total
        graph.writes.append((self.count, rest.node))
        known: Array = ops.where(ops.equal(total, 0.0), 1.0, total)
        return total if count.node.spec is CONST else known


def _beside(label: str, params: Sequence[Slot], known: dict[int, Slot]) -> list[Slot]:
    """One array beside each parameter, made once and kept in `known`."""
    new = [p for p in params if id(p) not in known]
    known.update(zip(map(id, new), siblings(label, new), strict=True))
    return [known[id(p)] for p in params]


def clip_by_value(grads: Sequence[Array], limit: float) -> list[Array]:
    """Each element limited to [-limit, limit], as torch.nn.utils.clip_grad_value_."""
    return [ops.clip(g, -limit, limit) for g in grads]


def clip_by_global_norm(grads: Sequence[Array], max_norm: float) -> list[Array]:
    """Scale gradients so that their joint Euclidean norm is at most `max_norm`.

    The factor is min(1, max_norm / (norm + 1e-6)), as in torch.nn.utils.clip_grad_norm_ (Pascanu et
    al., "On the difficulty of training recurrent neural networks", 2013).
    """
    total = ops.sum(ops.square(grads[0]))
    for g in grads[1:]:
        total = total + ops.sum(ops.square(g)).astype(total.dtype)
    factor = ops.minimum(max_norm / (ops.sqrt(total) + 1e-6), 1.0)
    return [g * factor.astype(g.dtype) for g in grads]


def require_count(name: str, value: object) -> None:
    """Raise DataError unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise DataError(f"{name} is {value!r}, expected an integer of at least 1.")
