"""PyTorch: `torch-eager` (the optimiser as it comes), `torch-fused` (its fused=True form), and
`torch-compile`: gather, forward, loss, backward and update as one graph through torch.compile.
`torch-fused-nhwc` and `torch-compile-nhwc` keep images and kernels with channels last.

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
from common.modules import make_model
from common.rows import Task, check_order, make_data, make_order, make_weights

_OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
# The parent says where; see children.py.
DEVICE = os.environ.get("GPUBP_BENCH_DEVICE", "cpu")
_MODES = {"torch-reduce-overhead": "reduce-overhead", "torch-max-autotune": "max-autotune"}
_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


class TorchCase(Case):
    """Data, model and initial weights.

    Args:
        task: what to do.
        nhwc: whether images and kernels are kept with channels last.
    """

    def __init__(self, task: Task, nhwc: bool = False) -> None:
        if "OMP_NUM_THREADS" in os.environ:
            torch.set_flush_denormal(True)  # as gpubp and XLA; its threads take it from this one
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_float32_matmul_precision("high" if task.row.precision == "tf32" else "highest")
        self._task = task
        self._row = task.row
        self.units = task.row.steps
        X, y = make_data(task.row)
        self._X, self._y = (torch.from_numpy(a.copy()).to(DEVICE) for a in (X, y))
        self._order = self._batches(make_order(task.row))
        self._model = make_model(nn, task.row.network, task.row.sample).to(DEVICE)
        self._loss = nn.MSELoss() if task.row.ratings else nn.CrossEntropyLoss()
        self._nhwc = nhwc
        if nhwc:
            self._X = self._X.permute(0, 2, 3, 1).contiguous()
            self._model.to(memory_format=torch.channels_last)

    def _batches(self, order: NDArray[np.int64]) -> list[torch.Tensor]:
        batches = torch.from_numpy(order.copy()).reshape(-1, self._row.batch)
        return list(batches.to(DEVICE))

    def _loss_of(self, model: Callable[[torch.Tensor], Any], index: torch.Tensor) -> torch.Tensor:
        """A batch's loss, with products in bfloat16 if the row says so."""
        if self._row.precision == "bf16":
            with torch.autocast(DEVICE, torch.bfloat16):
                return self._loss(model(self._gather(index)), self._y[index].reshape(-1))
        return self._loss(model(self._gather(index)), self._y[index].reshape(-1))

    def _gather(self, index: torch.Tensor) -> torch.Tensor:
        """A batch; of images (N, channels, height, width), in memory with channels last or not."""
        x = self._X[index]
        return x.permute(0, 3, 1, 2) if self._nhwc else x

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
        """Initial weights and running statistics, in place."""
        arrays = [a for arrays in make_weights(self._row) for a in arrays]
        with torch.no_grad():
            for parameter, array in zip(self._model.parameters(), arrays, strict=True):
                parameter.copy_(torch.from_numpy(array))
        for module in self._model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

    def _running(self) -> dict[str, torch.Tensor]:
        """Where a step leaves the running statistics."""
        return dict(self._model.named_buffers())

    def run(self) -> NDArray[Any]:
        """All steps of a call; returns every step's loss."""
        return self._run(self._order)

    def check(self) -> NDArray[Any]:
        """The losses of one epoch in the order of the data, then the running statistics."""
        self.reset()
        losses = self._run(self._batches(check_order(self._row)))
        running = [b for name, b in self._running().items() if "running" in name]
        return np.concatenate([losses, *(b.cpu().numpy() for b in running)])

    def _run(self, order: list[torch.Tensor]) -> NDArray[Any]:
        return torch.stack([self._step(index) for index in order]).cpu().numpy()

    def _step(self, index: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class EagerCase(TorchCase):
    """The loop of the tutorials, with torch.optim."""

    def __init__(self, task: Task, nhwc: bool = False, **options: Any) -> None:
        super().__init__(task, nhwc)
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

    def __init__(self, task: Task, mode: str | None = None, nhwc: bool = False) -> None:
        super().__init__(task, nhwc)
        self._mode = mode
        torch._dynamo.reset()
        self._compiled = torch.compile(self._functional, fullgraph=True, mode=mode)
        self._parameters = {n: p.detach().clone() for n, p in self._model.named_parameters()}
        self._buffers = {n: b.clone() for n, b in self._model.named_buffers()}
        self._m = {n: torch.zeros_like(p) for n, p in self._parameters.items()}
        self._v = {n: torch.zeros_like(p) for n, p in self._parameters.items()}
        self._t = torch.zeros((), device=DEVICE)

    def reset(self) -> None:
        """Initial weights, moments of zero; in place, so that nothing is compiled again."""
        self._load_weights()
        for name, parameter in self._model.named_parameters():
            self._parameters[name].copy_(parameter.detach())
        for name, buffer in self._model.named_buffers():
            self._buffers[name].copy_(buffer)
        for state in (self._t, *self._m.values(), *self._v.values()):
            state.zero_()

    def _running(self) -> dict[str, torch.Tensor]:
        return self._buffers

    def _functional(self, index: torch.Tensor) -> torch.Tensor:
        def loss_of(parameters: Any) -> tuple[torch.Tensor, Any]:
            # A function that is differentiated may not write over tensors of the outside.
            buffers = {n: b.clone() for n, b in self._buffers.items()}
            state = {**parameters, **buffers}
            call = torch.func.functional_call
            return self._loss_of(lambda x: call(self._model, state, (x,)), index), buffers

        gradient = torch.func.grad_and_value(loss_of, has_aux=True)
        grads, (loss, buffers) = gradient(self._parameters)
        update = self._adam if self._task.optimizer == "adam" else self._sgd
        update(grads)
        for name, buffer in buffers.items():
            self._buffers[name].copy_(buffer)
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
    plain = variant.removesuffix("-nhwc")
    nhwc = plain != variant
    if nhwc and not task.row.image:
        raise NotSupportedError("there are no images")
    if plain not in ("torch-eager", "torch-fused") and task.row.sequence:
        # PyTorch 2.13 breaks the graph at these modules, with allow_rnn=True at their gradient.
        raise NotSupportedError(
            "torch.compile makes no single graph of a step with nn.LSTM or nn.GRU"
        )
    if plain == "torch-graph":
        return GraphCase(task)
    if plain == "torch-compile" or plain in _MODES:
        return CompiledCase(task, _MODES.get(plain), nhwc)
    return EagerCase(task, nhwc, **({"fused": True} if plain == "torch-fused" else {}))


def versions() -> dict[str, str]:
    """Of PyTorch."""
    return {"torch": torch.__version__}
