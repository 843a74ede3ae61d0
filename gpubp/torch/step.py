"""`gpubp.torch.compile_step`: a torch training step as one compiled program.

Comes in: a model, a loss and an optimiser of torch. Goes out: a step that trains them; the torch
objects hold the new weights, buffers and optimiser state after each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from gpubp.compiler.grad import gradients
from gpubp.core import active_graph, tree
from gpubp.core.array import Array
from gpubp.errors import ArgumentError
from gpubp.nn.parameter import Parameter
from gpubp.runtime.compiled_step import Step
from gpubp.runtime.step import compile_step as compile_gpubp_step
from gpubp.torch.dtypes import as_array, as_tensor
from gpubp.torch.exporting import require_ready
from gpubp.torch.loaders import Loaded, is_loader
from gpubp.torch.optimizer import Reaching, twin_of
from gpubp.torch.schedule import Schedule
from gpubp.torch.translated import Translated


def compile_step(
    model: Any,
    loss_fn: Any,
    optimizer: Any,
    *,
    scheduler: Any = None,
    **settings: Any,
) -> TorchStep:
    """Compile a torch training step.

    Args:
        model: a `torch.nn.Module`, in the host's memory. Or a sequence of modules: then `loss_fn`
            gets the whole batch, and calls them itself.
        loss_fn: a loss of `torch.nn`, or a function of torch's operations, called as
            `loss_fn(model(*inputs), target)`: the last argument of a step is the target. None: the
            model returns the loss, and gets the whole batch. A tuple that begins with the loss may
            be returned; a step returns such a tuple then.
        optimizer: of `torch.optim`; all of its parameters belong to the model (or the models).
        scheduler: of `torch.optim.lr_scheduler`: it moves on by one after each update, also inside
            of `run`; do not call its `step` then. One that is left out may be stepped by hand
            between steps: each reads the rates that the optimiser has.
        **settings: those of `gpubp.compile_step`: backend, device, max_grad_norm, max_grad_value,
            accumulate, loss_scale, seed.

    Returns:
        The step: call it with one batch, or `run` whole epochs.

    Raises:
        ArgumentError: something that is no module or optimiser of torch's, or has hooks.
        DTypeError, DataError: parameters in half precision, on a GPU, or without a shape.
        TraceError: at the first call (or `prepare`): an operation without a counterpart, with the
            line of the model that asks for it. Nothing has run then.
    """
    alone = isinstance(model, torch.nn.Module)
    # What torch.compile returns holds the module that it was given.
    modules = [getattr(m, "_orig_mod", m) for m in ([model] if alone else model)]
    wrong = [m for m in modules if not isinstance(m, torch.nn.Module)]
    if wrong or not modules:
        found = type(wrong[0]).__name__ if wrong else "nothing"
        raise ArgumentError(f"model is {found}, expected a torch.nn.Module or several of them.")
    fn = _whole_batch(modules, loss_fn, alone)
    used = [*modules, loss_fn] if isinstance(loss_fn, torch.nn.Module) else modules
    require_ready(used)
    return TorchStep(used, fn, optimizer, scheduler, settings)


def _whole_batch(modules: Sequence[Any], loss_fn: Any, alone: bool) -> Callable[..., Any]:
    """The loss as a function of a batch."""
    if not alone:
        if not callable(loss_fn):
            raise ArgumentError("with several modules, loss_fn is a function of the whole batch.")
        whole: Callable[..., Any] = loss_fn
        return whole
    model = modules[0]
    if loss_fn is None:
        return lambda *batch: model(*batch)
    if not callable(loss_fn):
        raise ArgumentError(
            f"loss_fn is a {type(loss_fn).__name__}, expected a loss of torch.nn or a function."
        )

    def loss(*batch: Any) -> Any:
        if len(batch) < 2:
            raise ArgumentError(
                f"a step with a loss_fn got {len(batch)} argument, expected inputs and a target. "
                "For an autoencoder, pass the inputs twice."
            )
        return loss_fn(model(*batch[:-1]), batch[-1])

    return loss


class TorchStep:
    """A compiled step of torch objects; made by `compile_step`.

    Args:
        modules: all that `fn` uses.
        fn: of a batch; returns the loss, or a tuple that begins with it.
        optimizer: of torch.
        scheduler: of torch, or None.
        settings: of `gpubp.compile_step`.

    Attributes:
        step: gpubp's, with its report, program and settings.
    """

    def __init__(
        self,
        modules: Sequence[Any],
        fn: Callable[..., Any],
        optimizer: Any,
        scheduler: Any,
        settings: Mapping[str, Any],
    ) -> None:
        self._translated = Translated(modules, fn)
        links = self._translated.links
        self._optimizer = optimizer
        self._twin = twin_of(optimizer, self._own(modules))
        self._seen = Reaching(self._twin.mine)
        given = dict(settings)
        if scheduler is not None:
            given["scheduler"] = Schedule(scheduler, self._twin.mine, self._seen)
        self._links = links
        self.step: Step = compile_gpubp_step(self._loss, self._seen, **given)

    def _own(self, modules: Sequence[Any]) -> Callable[[Any], Any]:
        mine = {id(p) for m in modules for p in m.parameters()}

        def slot(parameter: Any) -> Any:
            if id(parameter) not in mine:
                raise ArgumentError(
                    f"the optimizer has a parameter of shape {tuple(parameter.shape)} that is not "
                    "the model's. Pass all modules that it trains, as in compile_step([a, b], ...)."
                )
            return self._translated.links.slot(parameter, "a parameter", True)

        return slot

    def _loss(self, *batch: Any) -> Any:
        """What is traced: the loss, and which parameters do not reach it."""
        result = self._translated(*batch)
        graph = active_graph()
        loss = result[0] if isinstance(result, (tuple, list)) else result
        if graph is not None and isinstance(loss, Array) and loss.shape == ():
            params: list[Parameter] = self._seen.all_parameters()
            found = gradients(graph, loss.node, [graph.leaf(p) for p in params])
            self._seen.leave_out([p for p, g in zip(params, found, strict=True) if g is None])
        return result

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Around whatever runs: torch's objects are read before, and hold the results after."""
        self._links.pull()
        self._twin.pull()
        try:
            yield
        finally:
            self._links.push()
            self._twin.push()

    def __call__(self, *batch: Any) -> Any:
        """Run one step on one batch.

        Args:
            *batch: tensors or arrays of equal first size, in the order of the model's arguments,
                and the target; tuples and dicts of them. What has no samples is marked by
                `gp.whole`.

        Returns:
            The loss from before the update, a tensor without axes; or the tuple that `loss_fn`
            returns.
        """
        given = [_arrays(b) for b in batch]
        with self._shared():
            found = self.step(*given)
        return _tensors(found)

    def run(self, *data: Any, **options: Any) -> Any:
        """Run whole epochs on data in memory, without Python between steps.

        Args:
            *data: tensors or arrays, as of `gpubp.runtime.step.Step.run`. Or one `DataLoader` of a
                `TensorDataset`: its batches in its order, which torch's generator draws as a loop
                over it would.
            **options: batch_size, epochs, shuffle, seed, drop_last, order, progress and the
                others of `Step.run`; with a loader, only epochs and progress.

        Returns:
            The loss of every batch, a tensor; or a tuple of tensors.
        """
        if len(data) == 1 and is_loader(data[0]):
            loaded = Loaded(data[0], options)
            data, options = loaded.tensors, loaded.options
        given = [_arrays(d) for d in data]
        with self._shared():
            found = self.step.run(*given, **options)
        return _tensors(found)

    def prepare(self, *batch: Any) -> Any:
        """Translate and compile for a batch of these types without running; the program.

        Raises:
            TraceError: an operation without a counterpart; names the line.
        """
        given = [_arrays(b) for b in batch]
        with self._shared():
            return self.step.prepare(*given)

    def report(self, profile: bool = False) -> str:
        """What was compiled; see `gpubp.runtime.step.Step.report`."""
        return self.step.report(profile)


def _arrays(value: Any) -> Any:
    """NumPy arrays in the place of tensors, in tuples and dicts too."""
    if isinstance(value, torch.Tensor):
        return as_array(value)
    if isinstance(value, dict):
        return {key: _arrays(v) for key, v in value.items()}
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        raise ArgumentError(
            "a step got a PackedSequence, whose parts have no samples in common. Pass the padded "
            "sequence and the lengths."
        )
    if isinstance(value, tuple):
        return tuple(map(_arrays, value))
    return value


def _tensors(value: Any) -> Any:
    found, structure = tree.flatten(value)
    return tree.unflatten(structure, [as_tensor(v) for v in found])
