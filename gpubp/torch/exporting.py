"""A torch program as a graph of ATen operations: torch.export, and what it would pass over.

Comes in: modules, a function that uses them, and the types of its arguments. Goes out: torch's
`ExportedProgram`, before operations are taken apart, so that a convolution or an LSTM is one node.

torch.export runs the function once on tensors without numbers. What it would leave out without a
word (backward functions of the user's, hooks) raises here.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from traceback import StackSummary
from typing import Any
from unittest import mock

import torch
from torch.fx.proxy import TracerBase

from gpubp.errors import DataError, GpubpError, TraceError
from gpubp.torch import own_ops, where
from gpubp.torch.unguarded import REPLACED

_HOOKS = {
    "_forward_hooks": "forward hook",
    "_forward_pre_hooks": "forward pre-hook",
    "_backward_hooks": "backward hook",
    "_backward_pre_hooks": "backward pre-hook",
}
_PARAMETER_HOOKS = {
    "_backward_hooks": "hook",
    "_post_accumulate_grad_hooks": "hook after accumulation",
}
_FILTER = "_filter_traceback_frames"
# What non-strict export would trace through, and lose.
_LOST: list[tuple[Any, str, str]] = [
    (
        torch.autograd.Function,
        "apply",
        "an autograd function with a backward of its own, which is not translated. Write its "
        "forward as plain operations, or register the model's part with gp.custom_vjp",
    ),
    (torch.Tensor, "register_hook", "a hook on a tensor's gradient, which would not be called"),
    (
        torch.autograd,
        "_engine_run_backward",
        "a gradient taken inside of the model or the loss, which is not translated",
    ),
    (
        torch._VF,
        "_pack_padded_sequence",
        "a packed sequence, whose length depends on the numbers in a tensor. Pass the padded one: "
        "what stands behind an end changes no output before it, so outputs[range, lengths - 1] is "
        "the last state, and a mask keeps the rest out of the loss",
    ),
]


def _called(modules: Sequence[Any], fn: Callable[..., Any]) -> Any:
    """A module whose forward is `fn`, with `modules` below it, in the modes that they have.

    The class is made here: torch's base has no type for those who check types without torch.
    """
    made: Any = type("Called", (torch.nn.Module,), {"forward": lambda self, *args: fn(*args)})()
    made.models = torch.nn.ModuleList(modules)
    return made


def export(modules: Sequence[Any], fn: Callable[..., Any], args: Sequence[Any]) -> Any:
    """The graph of `fn(*args)`.

    Args:
        modules: what `fn` uses; their parameters and buffers become inputs of the graph.
        fn: computes with torch alone.
        args: tensors of the right shapes and dtypes (their numbers are not read), and tuples and
            dicts of them.

    Raises:
        TraceError: torch cannot follow the code, or part of it would be lost; names the line.
    """
    require_ready(modules)
    program = _called(modules, fn)
    with _quietly(), _nothing_lost():
        try:
            return torch.export.export(program, tuple(args), strict=False)
        except GpubpError:
            raise
        except Exception as err:
            raise _explained(err) from err


def _explained(err: Exception) -> TraceError:
    line = where.of_error(err)
    text = str(err).strip().partition("\n")[0]
    if "data-dependent" in text:
        return TraceError(
            f"{line}: this depends on the numbers in a tensor, and a compiled step is one program "
            "for all numbers. Use torch.where, or a mask."
        )
    return TraceError(f"{line}: torch.export cannot follow this: {text}")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch warns, logs and prints of its own ways: errors say what matters."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = logger.disabled
    logger.disabled = True
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@contextmanager
def _nothing_lost() -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, what in _LOST:
            stack.enter_context(mock.patch.object(owner, name, _refusing(what)))
        for owner, name, function in (*REPLACED, *own_ops.REPLACED):
            stack.enter_context(mock.patch.object(owner, name, function))
        stack.enter_context(mock.patch.object(torch.nn.Module, "__setattr__", _set_attribute))
        if hasattr(TracerBase, _FILTER):
            stack.enter_context(mock.patch.object(TracerBase, _FILTER, _users_frames))
        yield


_set = torch.nn.Module.__setattr__


def _set_attribute(module: Any, name: str, value: Any) -> None:
    """What a forward sets is set once while it is traced, and in no step: only buffers are kept."""
    own = not type(module).__module__.startswith(("torch.", "gpubp."))
    buffer = module.__dict__.get("_buffers", {}).get(name)
    if own and isinstance(buffer, torch.Tensor) and isinstance(value, torch.Tensor):
        buffer.copy_(value)  # torch.export follows what is set on the outermost module alone
        return
    if own and name not in module._buffers and name not in module._parameters:
        before = module.__dict__.get(name, _set)
        if isinstance(value, torch.Tensor) or type(before) is not type(value) or before != value:
            raise TraceError(
                f"{where.of_caller()}: this sets {type(module).__name__}.{name}, but a compiled "
                "step runs no Python. Keep what changes in a buffer (register_buffer), or return "
                "it beside the loss."
            )
    _set(module, name, value)


def _users_frames(tracer: Any, frames: StackSummary) -> StackSummary:
    """What torch notes of where a node was made: export keeps calls named forward alone."""
    return where.kept(frames)


def _refusing(what: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TraceError(f"{where.of_caller()}: this is {what}.")

    return refuse


def require_ready(modules: Sequence[Any]) -> None:
    """Refuse what a step cannot train as it is.

    Raises:
        DataError: a parameter of a lazy layer has no shape yet.
        TraceError: a module or a parameter has a hook: compiled steps call none.
    """
    if torch.nn.modules.module._has_any_global_hook():
        raise _hooked("torch.nn", "hook of all modules")
    for top in modules:
        for name, parameter in top.named_parameters():
            if isinstance(parameter, torch.nn.parameter.UninitializedTensorMixin):
                raise DataError(
                    f"{name} has no shape yet: its layer finds it when it is first called. Call "
                    "the model once on a batch."
                )
        for name, module in top.named_modules():
            for table, what in _HOOKS.items():
                if getattr(module, table, None):
                    raise _hooked(name or type(module).__name__, what)
        for name, parameter in top.named_parameters():
            for table, what in _PARAMETER_HOOKS.items():
                if getattr(parameter, table, None):
                    raise _hooked(name, what)


def require_source(modules: Sequence[Any]) -> None:
    """Raise TraceError for a part that torch.jit.script has compiled: its Python code is gone."""
    for top in modules:
        for name, module in top.named_modules():
            if isinstance(module, torch.jit.RecursiveScriptModule):
                raise TraceError(
                    f"{name or 'the model'} is compiled by torch.jit.script, which torch.export "
                    "cannot look into. Use the module that it was made of: "
                    "module.load_state_dict(scripted.state_dict())."
                )


def _hooked(name: str, what: str) -> TraceError:
    return TraceError(
        f"{name} has a {what}; a compiled step calls no Python, so it would not run. Remove it, or "
        "write what it computes into forward (torch.nn.utils.parametrizations in the place of "
        "torch.nn.utils.weight_norm and spectral_norm)."
    )
