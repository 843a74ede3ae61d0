"""gpubp's layers as torch's: by the same name, with attributes as the constructor's arguments."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from gpubp import nn
from gpubp.errors import ArgumentError
from gpubp.nn.module import Module

_CONTAINERS = (nn.Sequential, nn.ModuleList)


def layer(module: Module) -> Any:
    """The torch module of the same kind, with copies of the weights.

    Raises:
        ArgumentError: torch has none, or its arguments cannot be told from it.
    """
    made = _made(module)
    state = {name: torch.from_numpy(value) for name, value in module.state_dict().items()}
    made.load_state_dict(state)
    made.train(module.training)
    for name, parameter in module.named_parameters():
        made.get_parameter(name).requires_grad_(parameter.requires_grad)
    return made


def _made(module: Module) -> Any:
    name = type(module).__name__
    kind = getattr(torch.nn, name, None)
    if kind is None or not type(module).__module__.startswith("gpubp.nn"):
        raise ArgumentError(
            f"{name} has no counterpart in torch.nn: write it as a torch.nn.Module, and load "
            "module.state_dict() into it."
        )
    if isinstance(module, nn.Sequential):
        named = {n: _made(m) for n, m in module.named_children()}
        made = torch.nn.Sequential()
        for key, part in named.items():
            made.add_module(key, part)
        return made
    if isinstance(module, nn.ModuleList):
        return torch.nn.ModuleList([_made(m) for m in module.children()])
    return kind(**_arguments(module, kind))


def _arguments(module: Module, kind: Any) -> dict[str, Any]:
    """The constructor's arguments, read from attributes of their names."""
    given: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name in ("self", "device") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name == "dtype":
            first = next(iter(module.parameters()), None)
            given[name] = None if first is None else getattr(torch, str(first.dtype))
        elif name == "bias":
            given[name] = _has_bias(module)
        elif hasattr(module, name):
            given[name] = getattr(module, name)
        elif parameter.default is parameter.empty:
            raise ArgumentError(
                f"{type(module).__name__} does not tell its {name}, which torch's needs."
            )
    return given


def _has_bias(module: Module) -> bool:
    found = getattr(module, "bias", None)
    return found if isinstance(found, bool) else found is not None
