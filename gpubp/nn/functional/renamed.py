"""Ops under torch's names of arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from gpubp.arguments import truth
from gpubp.errors import ArgumentError

Function = Callable[..., Any]


def as_torch(fn: Function, *, inplace: bool = False, **names: str) -> Function:
    """The same function with the names that torch.nn.functional gives its arguments.

    Args:
        fn: an op; its x is called `input` there.
        inplace: torch's function has an argument `inplace` at the end: it is taken if False.
        **names: torch's names of further arguments.

    Returns:
        A function with a signature and a docstring of its own.
    """
    names = {"x": "input", **names}
    own = list(inspect.signature(fn).parameters.values())
    given = [p.replace(name=names.get(p.name, p.name)) for p in own if p.name not in _OURS]
    extra = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name in _OURS]
    last = inspect.Parameter(
        "inplace", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False, annotation="bool"
    )
    signature = inspect.Signature([*given, *([last] if inplace else []), *extra])
    back = {names.get(p.name, p.name): p.name for p in own}

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{fn.__name__}() {error}") from None
        refuse_inplace(fn.__name__, bound.pop("inplace", False))
        return fn(**{back[name]: value for name, value in bound.items()})

    told = {"__signature__": signature, "__module__": "gpubp.nn.functional"}
    for name in ("__name__", "__qualname__", "__doc__"):
        told[name] = getattr(fn, name)
    for name, value in told.items():
        setattr(call, name, value)
    return call


# What gpubp's functions take beyond torch's arguments.
_OURS = ("generator",)


def refuse_inplace(name: str, inplace: Any) -> None:
    """Raise ArgumentError if something is to be changed in place: arrays here never are."""
    if truth(name, "inplace", inplace):
        raise ArgumentError(
            f"{name}: inplace is True, expected False: functions here return a new array, and a "
            "compiled program decides by itself where memory is used again."
        )


def refuse_legacy(name: str, size_average: Any, reduce: Any) -> None:
    """Raise ArgumentError for the two arguments that torch has replaced by `reduction`."""
    if size_average is not None or reduce is not None:
        raise ArgumentError(
            f'{name}: size_average and reduce are of old versions of torch: pass reduction="mean", '
            '"sum" or "none".'
        )
