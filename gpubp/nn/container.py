"""Modules made of other modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, overload

from gpubp.arguments import at
from gpubp.errors import ArgumentError
from gpubp.nn.module import Module


class Sequential(Module):
    """Modules applied one after the other: `Sequential(Linear(4, 8), ReLU(), Linear(8, 1))`.

    Sub-modules are named "0", "1", ..., as in torch; or by the keys of a dict, if one is given.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, named in modules[0].items():
                self.add_module(name, named)
            return
        for module in modules:
            self.append(module)

    def append(self, module: Any) -> Sequential:
        """Add a module at the end; returns self.

        Raises:
            ArgumentError: it is not a Module.
        """
        if not isinstance(module, Module):
            raise ArgumentError(
                f"Sequential takes modules, got {type(module).__name__}. "
                "For a plain function, write a Module whose forward() calls it."
            )
        setattr(self, str(len(self)), module)
        return self

    def forward(self, x: Any) -> Any:
        """Apply all modules in order; an empty Sequential returns `x`."""
        for module in self:
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module | Sequential:
        found = at(self, list(self), index)
        return Sequential(*found) if isinstance(index, slice) else found
