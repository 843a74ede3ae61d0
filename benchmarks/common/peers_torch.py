"""PyTorch: `torch-eager` (the optimiser as it comes), `torch-fused` (its fused=True form), and
`torch-compile`: gather, forward, loss, backward and update as one graph through torch.compile.

On a GPU also `torch-reduce-overhead` and `torch-max-autotune`, the compiled step in these modes,
and `torch-graph`: the compiled step captured in one CUDA graph, which is replayed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.case import Case, NotSupportedError
from common.rows import Task, check_order, make_data, make_order, make_weights

_ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}
_OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
# The parent says where; see children.py.
DEVICE = os.environ.get("GPUBP_BENCH_DEVICE", "cpu")
_MODES = {"torch-reduce-overhead": "reduce-overhead", "torch-max-autotune": "max-autotune"}
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class TorchCase(Case):
    """Data, model and initial weights."""

    def __init__(self, task: Task) -> None:
        if "OMP_NUM_THREADS" in os.environ:
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_float32_matmul_precision("high" if task.row.precision == "tf32" else "highest")
        self._task = task
        self._row = task.row
        self.units = task.row.steps
        X, y = make_data(task.row)
        self._X, self._y = (torch.from_numpy(a.copy()).to(DEVICE) for a in (X, y))
        self._order = self._batches(make_order(task.row))
        self._model = nn.Sequential()
        for inputs, outputs in zip(task.row.layers, task.row.layers[1:]):
            if len(self._model):
                self._model.append(_ACTIVATIONS[task.row.activation]())
            self._model.append(nn.Linear(inputs, outputs))
        self._model.to(DEVICE)
        self._loss = nn.CrossEntropyLoss()

    def _batches(self, order: NDArray[np.int64]) -> list[torch.Tensor]:
        batches = torch.from_numpy(order.copy()).reshape(-1, self._row.batch)
        return list(batches.to(DEVICE))

    def _loss_of(self, model: Callable[[torch.Tensor], Any], index: torch.Tensor) -> torch.Tensor:
        """A batch's loss, with products in bfloat16 if the row says so."""
        if self._row.precision == "bf16":
            with torch.autocast(DEVICE, torch.bfloat16):
                return self._loss(model(self._X[index]), self._y[index])
        return self._loss(model(self._X[index]), self._y[index])

    def device_seconds(self) -> float | None:
        """By events on the current stream; None on a CPU."""
        if DEVICE != "cuda":
            return None
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.run()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) * 1e-3

    def _load_weights(self) -> None:
        linears = [m for m in self._model if isinstance(m, nn.Linear)]
        with torch.no_grad():
            for linear, (W, b) in zip(linears, make_weights(self._row), strict=True):
                linear.weight.copy_(torch.from_numpy(W.T))
                linear.bias.copy_(torch.from_numpy(b))

    def run(self) -> NDArray[Any]:
        """All steps of a call; returns every step's loss."""
        return self._run(self._order)

    def check(self) -> NDArray[Any]:
        """The losses of one epoch in the order of the data."""
        self.reset()
        return self._run(self._batches(check_order(self._row)))

    def _run(self, order: list[torch.Tensor]) -> NDArray[Any]:
        return torch.stack([self._step(index) for index in order]).cpu().numpy()

    def _step(self, index: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class EagerCase(TorchCase):
    """The loop of the tutorials, with torch.optim."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__(task)
        self._options = options

    def reset(self) -> None:
        """Initial weights and a new optimiser."""
        self._load_weights()
        make = _OPTIMIZERS[self._task.optimizer]
        self._optimizer = make(self._model.parameters(), lr=self._task.lr, **self._options)

    def _step(self, index: torch.Tensor) -> torch.Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss_of(self._model, index)
        loss.backward()
        self._optimizer.step()
        return loss.detach()


class CompiledCase(TorchCase):
    """One graph a step over plain tensors, which it updates in place.

    Compiling the usual loop instead leaves the optimiser and the tape in Python: slower on every
    row where that matters.
    """

    def __init__(self, task: Task, mode: str | None = None) -> None:
        super().__init__(task)
        self._mode = mode
        torch._dynamo.reset()
        self._compiled = torch.compile(self._functional, fullgraph=True, mode=mode)
        self._parameters = {n: p.detach().clone() for n, p in self._model.named_parameters()}
        self._m = {n: torch.zeros_like(p) for n, p in self._parameters.items()}
        self._v = {n: torch.zeros_like(p) for n, p in self._parameters.items()}
        self._t = torch.zeros((), device=DEVICE)

    def reset(self) -> None:
        """Initial weights, moments of zero; in place, so that nothing is compiled again."""
        self._load_weights()
        for name, parameter in self._model.named_parameters():
            self._parameters[name].copy_(parameter.detach())
        for state in (self._t, *self._m.values(), *self._v.values()):
            state.zero_()

    def _functional(self, index: torch.Tensor) -> torch.Tensor:
        def loss_of(parameters: Any) -> torch.Tensor:
            call = torch.func.functional_call
            return self._loss_of(lambda x: call(self._model, parameters, (x,)), index)

        grads, loss = torch.func.grad_and_value(loss_of)(self._parameters)
        update = self._adam if self._task.optimizer == "adam" else self._sgd
        update(grads)
        return loss

    def _sgd(self, grads: dict[str, torch.Tensor]) -> None:
        for name, grad in grads.items():
            self._parameters[name].sub_(self._task.lr * grad)

    def _adam(self, grads: dict[str, torch.Tensor]) -> None:
        """Kingma & Ba 2015, in the order of arithmetic of torch.optim.Adam."""
        self._t.add_(1)
        size = self._task.lr / (1 - _BETA1**self._t)
        root = (1 - _BETA2**self._t).sqrt()
        for name, grad in grads.items():
            m, v = self._m[name], self._v[name]
            m.lerp_(grad, 1 - _BETA1)
            v.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
            self._parameters[name].sub_(size * m / (v.sqrt() / root + _EPS))

    def _step(self, index: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            loss = self._compiled(index)
        # A mode that replays graphs writes the next loss over this one.
        return loss if self._mode is None else loss.clone()


class GraphCase(CompiledCase):
    """The compiled step in one CUDA graph: a step is a copy of the batch's index and a replay."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        if DEVICE != "cuda":
            raise NotSupportedError("CUDA graphs need a GPU")
        self._index = self._order[0].clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):
                self._compiled(self._index)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.graph(self._graph):
            self._captured = self._compiled(self._index)

    def _step(self, index: torch.Tensor) -> torch.Tensor:
        self._index.copy_(index)
        self._graph.replay()
        return self._captured.clone()


def build(variant: str, task: Task) -> Case:
    """A variant by its name; see the module's docstring."""
    if variant == "torch-graph":
        return GraphCase(task)
    if variant == "torch-compile" or variant in _MODES:
        return CompiledCase(task, _MODES.get(variant))
    return EagerCase(task, **({"fused": True} if variant == "torch-fused" else {}))


def versions() -> dict[str, str]:
    """Of PyTorch."""
    return {"torch": torch.__version__}
