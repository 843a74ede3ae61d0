"""The table of torch's operations: ATen's name -> a function of gpubp that computes the same.

Each file of `aten/` has a family. A rule takes ATen's arguments in ATen's order, with arrays in the
place of tensors; the interpreter compares shape and dtype of each result with torch's own. What
writes in place (`add_`) needs no rule of its own: it is the rule of `add`, and a write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """How one operation is computed.

    Attributes:
        compute: takes ATen's arguments.
        view: the result may share the memory of the first argument.
        on_cells: it takes cells, not arrays, and may write into them.
    """

    compute: Callable[..., Any]
    view: bool = False
    on_cells: bool = False


RULES: dict[str, Rule] = {}


def rule(*names: str, view: bool = False, on_cells: bool = False) -> Callable[[Function], Function]:
    """Enter a function as the rule of operations: "add", or one overload, "add.Tensor"."""

    def enter(compute: Function) -> Function:
        for name in names:
            RULES[name] = Rule(compute, view, on_cells)
        return compute

    return enter


def same(functions: Mapping[str, Callable[..., Any]], view: bool = False) -> None:
    """Enter functions of gpubp that take the arguments of ATen as they are."""
    for name, compute in functions.items():
        RULES[name] = Rule(compute, view)


def find(name: str) -> tuple[Rule, bool] | None:
    """The rule of "add.Tensor" or "add_.Tensor", and whether it is to be written in place."""
    packet, _, overload = name.partition(".")
    inplace = packet.endswith("_") and not packet.endswith("__")
    for known in (name, packet):
        if known in RULES:
            return RULES[known], False
    if inplace:
        for known in (f"{packet[:-1]}.{overload}", packet[:-1]):
            if known in RULES:
                return RULES[known], True
    return None
