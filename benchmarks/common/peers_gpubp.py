"""gpubp: one compiled step. `gpubp` runs whole calls through `Step.run` on resident data;
`gpubp-single` is a Python loop that gathers a batch and calls `step(x, y)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from common.case import Case
from common.modules import make_model
from common.rows import Row, Task, check_order, make_data, make_order, make_weights
from gpubp import nn, optim
from gpubp.nn.piece import Piece

_OPTIMIZERS: dict[str, Any] = {"sgd": optim.SGD, "adam": optim.Adam}


class GpubpCase(Case):
    """The model, its step, and how to put both back to the start."""

    def __init__(self, task: Task, communicator: Any = None) -> None:
        self._row = task.row
        self.units = task.row.steps
        self._X, self._y = make_data(task.row)
        self._order = make_order(task.row)
        self._initial = [a for arrays in make_weights(task.row) for a in arrays]
        self._model = make_model(nn, task.row.network, task.row.sample)
        self._buffers = [(b, np.array(b.value)) for b in self._model.buffers()]
        self._optimizer = _OPTIMIZERS[task.optimizer](self._model.parameters(), lr=task.lr)
        loss_fn: Any = nn.MSELoss() if task.row.ratings else nn.CrossEntropyLoss()
        self._step = gp.compile_step(
            lambda x, t: loss_fn(self._model(x), t.reshape(-1) if t.ndim > 1 else t),
            self._optimizer,
            backend=_backend(task.row),
            communicator=communicator,
        )
        batch = task.row.batch
        self._step.prepare(self._X[:batch], self._y[:batch])

    def reset(self) -> None:
        """Initial weights and statistics, no optimiser state; the program stays."""
        for parameter, value in zip(self._model.parameters(), self._initial, strict=True):
            parameter.value = value
        for buffer, value in self._buffers:
            buffer.value = value
        self._optimizer.step_count.value = 0
        if self._optimizer.pieces is not None:  # of a divided optimiser this rank has pieces
            slots = self._optimizer.divided_slots()
            for slot in (s for s in slots if not isinstance(s, Piece)):
                slot.value = np.zeros(slot.shape, slot.dtype)
            return
        for name in self._optimizer.used_state(self._optimizer.param_groups[0]):
            for parameter in self._optimizer.parameters():
                slot = self._optimizer.state_of(name, parameter)
                slot.value = np.zeros(slot.shape, slot.dtype)

    def run(self) -> NDArray[Any]:
        """All steps of a call; returns every step's loss."""
        return self._run(self._order)

    def check(self) -> NDArray[Any]:
        """The losses of one epoch in the order of the data, then the running statistics."""
        self.reset()
        losses = self._run(check_order(self._row))
        named = self._model.named_buffers()
        running = [b.value.ravel() for name, b in named if "running" in name]
        return np.concatenate([losses, *running])

    def device_seconds(self) -> float | None:
        """By events on the backend's own stream; None on a CPU."""
        driver = getattr(self._step.backend, "driver", None)
        return None if driver is None else float(driver.seconds(self.run))

    def _run(self, order: NDArray[np.int64]) -> NDArray[Any]:
        return self._step.run(self._X, self._y, batch_size=self._row.batch, order=order)


class SingleCase(GpubpCase):
    """A call for each step, as a loop that makes its data along the way has to."""

    def _run(self, order: NDArray[np.int64]) -> NDArray[Any]:
        losses = np.empty(len(order) // self._row.batch, np.float32)
        for i, index in enumerate(order.reshape(-1, self._row.batch)):
            losses[i] = self._step(self._X[index], self._y[index])
        return losses


def _backend(row: Row) -> Any:
    """The one that the environment names; on a GPU, in the row's precision."""
    if row.precision == "float32":
        return None
    from gpubp.backends.cuda import CupyBackend

    return CupyBackend(precision=row.precision)


def build(variant: str, task: Task) -> Case:
    """`gpubp` or `gpubp-single`."""
    return {"gpubp": GpubpCase, "gpubp-single": SingleCase}[variant](task)


def versions() -> dict[str, str]:
    """Of gpubp, with its backend."""
    return {"gpubp": gp.__version__, "gpubp backend": gp.default_backend_name()}
