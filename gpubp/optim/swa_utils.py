"""Averages of weights over a training, as torch.optim.swa_utils.

Stochastic weight averaging (Izmailov et al., UAI 2018, arXiv:1803.05407) takes the plain average of
the weights at the ends of epochs. It is moved between runs, by hand; `gpubp.optim.EMA` is an
average that the step's program moves after each update.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.nn.channel_norm import BatchNorm
from gpubp.nn.module import Module
from gpubp.optim.lr_scheduler.swa import SWALR

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

# (the average, the model's value, how many are averaged) -> the new average.
AvgFn = Callable[[Any, Any, int], Any]
# The same of lists of arrays of one dtype, in place.
MultiAvgFn = Callable[[Sequence[NDArray[Any]], Sequence[NDArray[Any]], int], None]


def get_swa_avg_fn() -> AvgFn:
    """The plain average: a + (w - a) / (n + 1)."""

    def swa_update(averaged: Any, current: Any, num_averaged: int) -> Any:
        return averaged + (current - averaged) / (num_averaged + 1)

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """The exponential average: decay a + (1 - decay) w.

    Raises:
        DataError: decay is not in [0, 1].
    """
    decay = _checked_decay(decay)

    def ema_update(averaged: Any, current: Any, num_averaged: int) -> Any:
        return decay * averaged + (1.0 - decay) * current

    return ema_update


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """`get_swa_avg_fn` of lists of arrays, in place."""
    return _in_place(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAvgFn:
    """`get_ema_avg_fn` of lists of arrays, in place.

    Raises:
        DataError: decay is not in [0, 1].
    """
    return _in_place(get_ema_avg_fn(decay))


@checked
def _checked_decay(decay: float) -> float:
    if not 0.0 <= decay <= 1.0:
        raise DataError(f"decay is {decay}, expected a number in [0, 1].")
    return decay


def _in_place(update: AvgFn) -> MultiAvgFn:
    def update_all(
        averaged: Sequence[NDArray[Any]], current: Sequence[NDArray[Any]], num_averaged: int
    ) -> None:
        for a, w in zip(averaged, current, strict=True):
            _put(a, update(a, w, num_averaged))

    return update_all


def _put(array: NDArray[Any], value: Any) -> None:
    """Write in place; of whole numbers the fraction is dropped, as torch's copy_ does."""
    array[...] = np.asarray(value).astype(array.dtype, copy=False)


class AveragedModel(Module):
    """A copy of a model whose parameters are averages, as torch.optim.swa_utils.AveragedModel.

    The first `update_parameters` copies the model's parameters, each further one averages. Call it
    between runs; evaluate the averaged model as any other. With BatchNorm its running statistics
    are the model's own: `update_bn` finds those of the averaged weights.

    Args:
        model: copied.
        device: None; where programs run is said where they are compiled.
        avg_fn: (averaged, current, num_averaged) -> the new average, of NumPy arrays. Default:
            `get_swa_avg_fn()`.
        multi_avg_fn: the same of lists of arrays of one dtype, in place.
        use_buffers: average the buffers too, instead of copying them.

    Attributes:
        module: the averaged model.
        n_averaged: buffer: how many models are averaged.

    Raises:
        DataError: both functions are given.
        ArgumentError: a device.
    """

    @checked
    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Callable[..., Any] | None = None,
        multi_avg_fn: Callable[..., Any] | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise DataError("AveragedModel got avg_fn and multi_avg_fn, expected one of them.")
        if device is not None:
            raise ArgumentError(
                f"AveragedModel: device is {device!r}, expected None: say it to what runs the "
                "model, as in gp.compile(model, device=...)."
            )
        self.module = copy.deepcopy(model)
        self.register_buffer("n_averaged", np.zeros((), np.int64))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model returns."""
        return self.module(*args, **kwargs)

    @checked
    def update_parameters(self, model: Module) -> None:
        """Take the model's weights into the average.

        Raises:
            ShapeError: `model` has other parameters or buffers than the one that was copied.
        """
        parameters = _pairs(self.module.parameters(), model.parameters())
        buffers = _pairs(self.module.buffers(), model.buffers())
        count = int(self.n_averaged.value)
        averaged, copied = (parameters, buffers) if count else ([], parameters + buffers)
        if count and self.use_buffers:
            averaged, copied = parameters + buffers, []
        if averaged:
            self._average(averaged, count)
        for mine, theirs in copied:
            _put(mine, theirs)
        self.n_averaged.value = count + 1

    def _average(self, pairs: Sequence[tuple[Any, Any]], count: int) -> None:
        if self.multi_avg_fn is None:
            update = _in_place(self.avg_fn or get_swa_avg_fn())
            update([mine for mine, _ in pairs], [theirs for _, theirs in pairs], count)
            return
        for dtype in dict.fromkeys(mine.dtype for mine, _ in pairs):
            of_type = [pair for pair in pairs if pair[0].dtype == dtype]
            self.multi_avg_fn([a for a, _ in of_type], [w for _, w in of_type], count)


def _pairs(mine: Iterable[Slot], theirs: Iterable[Slot]) -> list[tuple[Any, Any]]:
    """The live arrays of both."""
    found = [slot.value for slot in mine], [slot.value for slot in theirs]
    shapes = [[array.shape for array in arrays] for arrays in found]
    if shapes[0] != shapes[1]:
        raise ShapeError(
            f"AveragedModel: got a model with arrays of the shapes {shapes[1]}, expected those of "
            f"the one that was copied, {shapes[0]}."
        )
    return list(zip(*found, strict=True))


@checked
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Find the running statistics of a model's BatchNorm layers anew, as torch's update_bn.

    They become plain averages over the batches, through which the model goes in train mode.

    Args:
        loader: batches: arrays, or tuples and lists that begin with the model's input.
        model: stays in its mode.
        device: None; see `AveragedModel`.

    Raises:
        ArgumentError: a device.
    """
    if device is not None:
        raise ArgumentError(f"update_bn: device is {device!r}, expected None.")
    layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        model.train()
        for batch in loader:
            model(batch[0] if isinstance(batch, (list, tuple)) else batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes:
            module.training = mode
