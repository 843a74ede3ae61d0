"""Operations of gpubp's own in torch's graphs: what torch.export cannot follow, or takes apart.

While a program is exported these stand in the place of torch's functions, each as one node, which
a rule of its own (`aten/losses.py`) translates.
"""

from __future__ import annotations

from typing import Any

import torch

_REDUCTIONS = ("none", "mean", "sum")


def _ctc(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    reduction: int,
    zero_infinity: bool,
) -> Any:
    return torch.nn.functional.ctc_loss(
        log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank,
        _REDUCTIONS[reduction],
        zero_infinity,
    )


def _ctc_shape(log_probs: Any, targets: Any, *rest: Any) -> Any:
    one = rest[3] != 0 or log_probs.dim() == 2
    return log_probs.new_empty(() if one else (log_probs.shape[1],))


# No custom_op of torch's: that one is an autograd function, which export is told to refuse.
_LIBRARY = torch.library.Library("gpubp", "DEF")
_LIBRARY.define(
    "ctc_loss(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, "
    "int blank, int reduction, bool zero_infinity) -> Tensor"
)
_LIBRARY.impl("ctc_loss", _ctc, "CPU")
torch.library.register_fake("gpubp::ctc_loss", _ctc_shape, lib=_LIBRARY)


def ctc_loss(
    log_probs: Any,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Any:
    """`torch.nn.functional.ctc_loss` as one node; lengths may be tensors or tuples of numbers."""
    lengths = [torch.as_tensor(given) for given in (input_lengths, target_lengths)]
    number = _REDUCTIONS.index(reduction)
    one = torch.ops.gpubp.ctc_loss
    return one(log_probs, targets, *lengths, blank, number, zero_infinity)


REPLACED = ((torch.nn.functional, "ctc_loss", ctc_loss),)
