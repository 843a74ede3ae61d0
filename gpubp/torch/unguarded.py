"""Functions of torch's that look at numbers, without the look.

torch.export cannot follow Python that depends on the numbers in tensors, and a compiled step has
none. While a program is exported these stand in their place.
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


_BatchNorm: Any = torch.nn.modules.batchnorm._BatchNorm
_usual_forward = _BatchNorm.forward


def batch_norm_forward(self: Any, input: Any) -> Any:
    """BatchNorm whose running statistics are the mean of all batches (momentum=None).

    Args:
        self: the module.
        input: (N, C, ...).
    """
    if self.momentum is not None or not (self.training and self.track_running_stats):
        return _usual_forward(self, input)
    self._check_input_dim(input)
    self.num_batches_tracked.add_(1)
    share = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
    axes = [axis for axis in range(input.dim()) if axis != 1]
    mean, var = input.detach().mean(axes), input.detach().var(axes)
    for running, found in ((self.running_mean, mean), (self.running_var, var)):
        running.copy_(running + share * (found - running))
    return torch.nn.functional.batch_norm(
        input, None, None, self.weight, self.bias, True, 0.0, self.eps
    )


REPLACED = (
    (_BatchNorm, "forward", batch_norm_forward),
    (torch.nn.functional, "gaussian_nll_loss", gaussian_nll_loss),
)
