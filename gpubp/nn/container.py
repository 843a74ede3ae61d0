"""Modules made of other modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from gpubp.arguments import at, shown
from gpubp.errors import ArgumentError
from gpubp.kinds import is_iterable
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
        setattr(self, str(len(self)), _checked(module))
        return self

    def extend(self, modules: Iterable[Module]) -> Sequential:
        """Add modules at the end; returns self."""
        if not is_iterable(modules):
            raise ArgumentError(f"Sequential takes an iterable of modules, got {shown(modules)}.")
        for module in [_checked(m) for m in modules]:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Sequential:
        """Add a module before position `index`; all are numbered anew. Returns self."""
        members: list[Any] = list(self)
        at(self, [*members, None], index)
        members.insert(index, _checked(module))
        return self._renumbered(members)

    def pop(self, index: int = -1) -> Module:
        """Remove a module and return it; the others are numbered anew."""
        found: Module = at(self, list(self), index)
        del self[index]
        return found

    def _renumbered(self, members: Iterable[Module]) -> Sequential:
        self._modules.clear()
        return self.extend(members)

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

    def __setitem__(self, index: int, module: Module) -> None:
        name = at(self, [name for name, _ in self.named_children()], index)
        if not isinstance(name, str):
            raise ArgumentError("Sequential: replace one module at a time, not a slice.")
        setattr(self, name, _checked(module))

    def __delitem__(self, index: int | slice) -> None:
        members = list(self)
        at(self, members, index)
        del members[index]
        self._renumbered(members)


def _checked(module: Any) -> Module:
    if not isinstance(module, Module):
        raise ArgumentError(
            f"Sequential takes modules, got {type(module).__name__}. "
            "For a plain function, write a Module whose forward() calls it."
        )
    return module
