"""The update half of a training step: what follows the loss in its trace.

Comes in: a graph that ends in the loss. Goes out: the same graph with gradients, clipping, the
optimiser's update, the schedule's move and the weights' average appended, as writes to slots.

With accumulation there are two kinds of programs. One adds a batch's gradient to sums; the other
does that too and then updates with the mean. A run is a sequence of both, so neither decides
anything while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.core import Array, Graph, Node
from gpubp.errors import DataError, GradientError, ShapeError
from gpubp.grad import gradients
from gpubp.ops.spec import cast_to
from gpubp.scaling import LossScale
from gpubp.store import Slot, pack, siblings

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
        if self.scheduler is None:
            return
        if not hasattr(self.scheduler, "table"):
            raise DataError(
                f"{type(self.scheduler).__name__} cannot run inside the program: its step() needs "
                "a metric. Call it between runs."
            )
        if self.scheduler.optimizer is not optimizer:
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
        self._sum_of: dict[int, Slot] = {}
        self._samples = Slot("samples", 0.0, np.float64)
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
        """What waits for the next update: {"batches", "samples", "sums": [array, ...]} (copies)."""
        params = self.optimizer.parameters()
        known = [self._sum_of.get(id(p)) for p in params] if self.pending else []
        return {
            "batches": self.pending,
            "samples": float(self._samples.value),
            "sums": [slot.value.copy() for slot in known if slot is not None],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what waits for the next update; if it raises, nothing has changed.

        Raises:
            DataError: sums of another number of parameters, or as many batches as an update takes.
            ShapeError: a sum has not its parameter's shape.
        """
        batches = int(state_dict["batches"])
        params = list(self.optimizer.parameters()) if batches else []
        sums = [np.asarray(s) for s in state_dict["sums"]] if batches else []
        if batches and not batches < self.settings.accumulate:
            raise DataError(
                f"{batches} batches wait in the state, but accumulate is "
                f"{self.settings.accumulate}."
            )
        if len(sums) != len(params):
            raise DataError(f"got sums of {len(sums)} gradients, expected {len(params)}.")
        for param, total in zip(params, sums):
            if total.shape != param.shape:
                raise ShapeError(
                    f"{param.name}: its gradient's sum has shape {total.shape}, expected "
                    f"{param.shape}."
                )
        pack("params", params)
        for slot, total in zip(_beside("grad_sums", params, self._sum_of), sums):
            slot.value = total
        self._batches.value = np.int64(batches)
        self._samples.value = np.float64(state_dict["samples"])

    def append(self, graph: Graph, loss: Node, samples: int, final: bool) -> None:
        """Append gradients and what is done with them.

        Args:
            graph: whose trace ends in the loss.
            loss: a scalar.
            samples: in a batch.
            final: update; else only add to the sums.
        """
        params = list(self.optimizer.parameters())
        pack("params", params)
        scale = self.settings.loss_scale
        if scale is not None:
            pack("loss_scale", [scale.scale, scale.good, scale.skipped])
            loss = graph.lift(scale.scaled(Array(graph, loss)))
        grads = self._gradients(graph, loss, params)
        if self.settings.accumulate > 1:
            grads = self._accumulated(graph, params, grads, samples, final)
        if final:
            self._update(graph, params, grads)

    def _gradients(self, graph: Graph, loss: Node, params: Sequence[Slot]) -> list[Array]:
        found = gradients(graph, loss, [graph.slot(p) for p in params])
        lost = [p.name for p, g in zip(params, found) if g is None]
        if lost:
            raise GradientError(
                f"these parameters do not reach the loss: {', '.join(lost)}. Use them in the "
                "loss, or leave them out of the optimizer."
            )
        return [Array(graph, g) for g in found if g is not None]

    def _accumulated(
        self, graph: Graph, params: Sequence[Slot], grads: list[Array], samples: int, final: bool
    ) -> list[Array]:
        """The mean gradient of all samples since the last update; the sums are written."""
        _beside("grad_sums", params, self._sum_of)
        is_first = ops.equal(self._samples, 0.0)
        total = ops.add(self._samples, float(samples))
        sums = []
        for param, grad in zip(params, grads):
            before = self._sum_of[id(param)]
            weighted = ops.multiply(grad, float(samples))
            sums.append(ops.where(is_first, weighted, ops.add(before, weighted)))
            if not final:
                graph.writes.append((before, sums[-1].node))
        batches = ops.multiply(self._batches, 0) if final else ops.add(self._batches, 1)
        rest = ops.multiply(total, 0.0) if final else total
        graph.writes += [(self._samples, rest.node), (self._batches, batches.node)]
        return [ops.divide(s, ops.astype(total, s.dtype)) for s in sums]

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
