"""Softmax and its relatives with torch's arguments."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.nn.softmax import LogSoftmax, Softmax, Softmin


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along `dim`.

    Args:
        input: any shape.
        dim: the axis of the classes; required.
        _stacklevel: of torch's warnings; without effect.
        dtype: to which the input is cast first; None: its own.

    Raises:
        DataError: no `dim`.
        ShapeError: there is no such axis.
    """
    return Softmax(dim).forward(_cast(input, dtype))


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """x - log(sum(exp(x))) along `dim`; arguments as for `softmax`."""
    return LogSoftmax(dim).forward(_cast(input, dtype))


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """exp(-x) / sum(exp(-x)) along `dim`; arguments as for `softmax`."""
    return Softmin(dim).forward(_cast(input, dtype))


def _cast(input: Any, dtype: Any) -> Any:
    return input if dtype is None else ops.astype(input, dtype)


def gumbel_softmax(
    logits: Any,
    tau: float = 1.0,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
    *,
    generator: ops.Generator | None = None,
) -> Any:
    """`gp.ops.gumbel_softmax`; `eps` does nothing, as in torch."""
    return ops.gumbel_softmax(logits, tau, hard, dim, generator)
