"""`gp.compile_step`: forward, loss, backward and update of one training step as one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpubp.arguments import checked
from gpubp.backends import get_backend
from gpubp.backends.base import Backend
from gpubp.compiler.pipeline import Options
from gpubp.distributed.communicator import Communicator
from gpubp.distributed.parallel import DataParallel, as_parallel
from gpubp.runtime.compiled_step import Step
from gpubp.runtime.loss_scale import LossScale, as_loss_scale
from gpubp.runtime.settings import Settings, StepAverage, StepOptimizer, StepScheduler
from gpubp.runtime.several import as_one

__all__ = ["Step", "compile_step"]


@checked
def compile_step(
    fn: Callable[..., Any],
    optimizer: StepOptimizer | Sequence[StepOptimizer],
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    max_grad_norm: float | None = None,
    max_grad_value: float | None = None,
    keep_grads: bool = False,
    accumulate: int = 1,
    scheduler: StepScheduler | None = None,
    ema: StepAverage | None = None,
    loss_scale: LossScale | str | float | None = None,
    communicator: Communicator | DataParallel | None = None,
    seed: int = 0,
    options: Options | None = None,
) -> Step:
    """Compile a training step.

    Args:
        fn: takes a batch (arrays with samples along the first axis, tuples and dicts of such, and
            what `gp.whole` marks) and returns a scalar loss, or a tuple that begins with it and
            holds what else a step is to return. It is traced, so it may be any traceable Python.
            The loss is taken for a mean over
            samples, but for what losses of `gpubp.nn` and `gp.ops.mean_over` say they are.
        optimizer: an optimiser of `gpubp.optim`, every parameter of which must reach the loss; or a
            list of several, each with parameters of its own.
        backend: "numba", "numpy" or an instance; default from GPUBP_BACKEND, else the best.
        device: "cpu", "cuda", "cuda:N" or "cuda-emulated" (see docs/gpu.md); default from
            GPUBP_DEVICE, else the CPU.
        max_grad_norm: clip the gradients' global norm. Gradients are kept in a buffer then.
        max_grad_value: clip each element of the gradients to [-max_grad_value, max_grad_value],
            before the norm.
        keep_grads: keep the gradients of the last update in `step.grads`.
        accumulate: update once for so many batches, with the gradient that one batch of all their
            samples would give.
        scheduler: a schedule of `gpubp.optim.lr_scheduler` for this optimiser, which moves on by
            one after each update, inside the program: do not call its `step` as well.
        ema: an average of the weights (`gpubp.optim.EMA`), moved on after each update.
        loss_scale: "dynamic", a number, or a `gp.LossScale`: gradients are taken of the scaled loss
            and scaled back; an update with one that is not finite is skipped as a whole. Default is
            "dynamic" where products are computed in float16, else none.
        communicator: of `gpubp.distributed`, or a `DataParallel` with options: its ranks share the
            batches, and each calls the step in the same way. What the step returns is that of the
            whole batch, on every rank; beside the loss these can be numbers. Default, and with one
            rank: all is done here.
        seed: of the order in which `run` shuffles.
        options: for tests: switch fusion or memory reuse off.

    Returns:
        The step: call it with one batch, or `run` whole epochs.

    Raises:
        DataError: an argument out of its range, or a scheduler of another optimiser.
    """
    target = get_backend(backend, device)
    if loss_scale is None and target.precision == "float16":
        loss_scale = "dynamic"
    scale = as_loss_scale(loss_scale)
    settings = Settings(
        max_grad_norm,
        max_grad_value,
        keep_grads,
        accumulate,
        scheduler,
        ema,
        scale,
        as_parallel(communicator),
    )
    return Step(fn, as_one(optimizer), target, None, settings, seed, options)
