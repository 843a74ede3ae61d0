"""Names, order and defaults of arguments: torch's, and behind them what gpubp has besides."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from gpubp import nn, optim

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
pytestmark = pytest.mark.oracle

# How torch computes, where, or what it has given up; and what a caller never passes.
PASSED_OVER = {
    *("self", "device", "dtype", "inplace", "size_average", "reduce", "min_value", "max_value"),
    *("foreach", "fused", "capturable", "differentiable", "options", "verbose", "last_epoch"),
    *("_stacklevel", "_freeze", "_weight"),
}
# Values instead of shapes, and lists of members under a plainer name.
OTHER_ARGUMENTS = {"Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter"}
OTHER_ARGUMENTS |= {"ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Identity"}
# A label of -100 is refused unless it is asked for: it is more often a mistake.
OTHER_DEFAULTS = {("ignore_index", "-100"): "None"}


def _pairs() -> Iterator[tuple[str, Any, Any]]:
    for theirs, mine in (
        (torch.nn, nn),
        (torch.optim, optim),
        (torch.optim.lr_scheduler, optim.lr_scheduler),
    ):
        for name in sorted(set(dir(theirs)) & set(dir(mine)) - OTHER_ARGUMENTS):
            if inspect.isclass(getattr(theirs, name)):
                yield name, getattr(theirs, name), getattr(mine, name)


def _arguments(made: Any) -> dict[str, Any]:
    """Name -> default, in order; those that stand for any others are left out."""
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    found = inspect.signature(made.__init__).parameters.values()
    return {p.name: p.default for p in found if p.kind not in kinds and p.name not in PASSED_OVER}


def _shown(default: Any) -> str:
    return str(getattr(default, "__name__", default))


def test_arguments_and_their_defaults() -> None:
    pairs, odd = list(_pairs()), []
    for name, theirs, mine in pairs:
        expected, found = _arguments(theirs), _arguments(mine)
        if list(found)[: len(expected)] != list(expected):
            odd.append((name, list(expected), list(found)))
            continue
        for key, default in expected.items():
            wanted = OTHER_DEFAULTS.get((key, _shown(default)), _shown(default))
            if _shown(found[key]) != wanted and found[key] != default:
                odd.append((name, key, default, found[key]))
    assert len(pairs) > 150
    assert odd == []
