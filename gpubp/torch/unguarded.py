"""Functions of torch's that look at numbers to check them, without the look.

torch.export cannot follow a check of numbers in Python, and a compiled step has none. While a
program is exported these stand in their place.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from gpubp.errors import ShapeError


def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """The likelihood of a normal distribution (Nix & Weigend, ICNN 1994).

    Args:
        input, target: of one shape.
        var: of that shape, or one that is repeated to it, or without the last axis; or a number.
            At least eps counts, and its gradient passes as if there were no least.
        full: with the term that is the same for all.
        eps: the least variance.
        reduction: "mean", "sum" or "none".

    Raises:
        ShapeError: var does not fit.
    """
    if not isinstance(var, torch.Tensor):
        var = torch.full_like(input, var)
    if input.shape[:-1] == var.shape:
        var = var.unsqueeze(-1)
    if torch.broadcast_shapes(var.shape, input.shape) != input.shape:
        raise ShapeError(
            f"gaussian_nll_loss: var has shape {tuple(var.shape)}, input {tuple(input.shape)}."
        )
    least = var + (var.clamp(min=eps) - var).detach()
    losses = 0.5 * (least.log() + (input - target) ** 2 / least)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return losses if reduction == "none" else getattr(losses, reduction)()


REPLACED = ((torch.nn.functional, "gaussian_nll_loss", gaussian_nll_loss),)
