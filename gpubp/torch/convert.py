"""Torch modules as gpubp's, and gpubp's as torch's."""

from __future__ import annotations

from typing import Any

from gpubp.core.store import pack
from gpubp.errors import ArgumentError
from gpubp.nn.module import Module
from gpubp.torch.exporting import require_ready
from gpubp.torch.translated import Translated


class FromTorch(Module):
    """A torch module as one of gpubp: the same names, the same memory, its forward translated.

    Args:
        theirs: the torch module.
        called: its forward on gpubp's arrays; below the top there is one for each.
    """

    def __init__(self, theirs: Any, called: Translated | None = None) -> None:
        super().__init__()
        own = called or Translated([theirs], lambda *args: theirs(*args))
        self.__dict__["_theirs"], self.__dict__["_translated"] = theirs, own
        for name, tensor in theirs._parameters.items():
            slot = None if tensor is None else own.links.slot(tensor, name, True)
            setattr(self, name, slot)
        for name, tensor in theirs._buffers.items():
            if tensor is not None:
                setattr(self, name, own.links.slot(tensor, name, False))
        for name, child in theirs._modules.items():
            if child is not None:
                self.add_module(name, FromTorch(child))
        self.__dict__["_training"] = theirs.training

    def train(self, mode: bool = True) -> Any:
        """Set the mode here and in the torch module."""
        self.__dict__["_theirs"].train(mode)
        super().train(mode)
        return self

    def forward(self, *args: Any) -> Any:
        """What the torch module's forward returns, of arrays."""
        return self.__dict__["_translated"](*args)


def from_module(module: Any) -> FromTorch:
    """A `torch.nn.Module` as a module of gpubp, for `gp.compile_step`, `Trainer` and all else.

    Parameters and buffers are shared: what trains one trains the other. Modes are the torch
    module's: `train()` and `eval()` of either set both.

    Args:
        module: in the host's memory.

    Raises:
        ArgumentError: no torch module.
        TraceError: when it is called: an operation without a counterpart; names the line.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"got a {type(module).__name__}, expected a torch.nn.Module.")
    require_ready([module])
    made = FromTorch(module)
    pack("params", list(made.parameters()))
    pack("buffers", list(made.buffers()))
    for part in made.modules():
        part.__dict__["_translated"].links.push()
    return made


def to_module(module: Any) -> Any:
    """A module of gpubp as a `torch.nn.Module`.

    Args:
        module: one of `from_module` (whose torch module is returned, with the live weights), or one
            of gpubp's layers under torch's names, and containers of them. Weights are copied.

    Raises:
        ArgumentError: a module with a forward of the user's, which torch cannot run.
    """
    if isinstance(module, FromTorch):
        return module.__dict__["_theirs"]
    from gpubp.torch.layers import layer

    return layer(module)
