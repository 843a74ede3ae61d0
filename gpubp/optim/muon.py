"""Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/), in torch's form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from gpubp import ops
from gpubp.core import Array, Shape
from gpubp.errors import ShapeError
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params, checked_params
from gpubp.optim.options import NotNegative, Range
from gpubp.optim.rules import average, decayed, scalar
from gpubp.optim.state import Cohort

Three = Annotated[
    tuple[float, float, float],
    Range("three numbers", lambda c: len(c) == 3 and all(map(math.isfinite, c)), "are"),
]
Rounds = Annotated[
    int, Range("an integer of 0 to 99", lambda n: n in range(100) and not isinstance(n, bool))
]
AdjustLR = Annotated[
    str | None,
    Range(
        "None, 'original' or 'match_rms_adamw'",
        lambda name: name in (None, "original", "match_rms_adamw"),
        words=True,
    ),
]


class Muon(Optimizer):
    """Momentum whose directions are made equally long by Newton-Schulz steps, as torch.optim.Muon.

    b <- momentum b + (1 - momentum) g, and u = momentum b + (1 - momentum) g once more with
    nesterov, else b. X = u / ||u||, then ns_steps times X <- a X + (b A + c A A) X with A = X X^T,
    which brings the singular values of X near 1. Then w <- w (1 - lr weight_decay) - lr r X, with
    r = sqrt(max(1, rows / columns)), or 0.2 sqrt(max(rows, columns)) with "match_rms_adamw" (Liu et
    al., 2025, arXiv:2502.16982). torch computes X in bfloat16, this in the parameter's dtype.

    For the matrices of hidden layers; give biases, norms and embeddings to another optimiser.

    Args:
        params: parameters of two dimensions, or groups of them.
        lr: learning rate, at least 0.
        weight_decay: decoupled from the gradient, at least 0.
        momentum: at least 0.
        nesterov: look ahead by one more step of momentum.
        ns_coefficients: (a, b, c) of the Newton-Schulz steps.
        eps: the least norm that is divided by, at least 0.
        ns_steps: Newton-Schulz steps, 0 to 99.
        adjust_lr_fn: None, "original" or "match_rms_adamw": how lr depends on a matrix's shape.

    Raises:
        DataError: an option out of its range.
        ShapeError: a parameter that is no matrix.
    """

    elementwise = False
    state_names = ("momentum_buffer",)
    saves_step = False
    decouples = True

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-3,
        weight_decay: NotNegative = 0.1,
        momentum: NotNegative = 0.95,
        nesterov: bool = True,
        ns_coefficients: Three = (3.4445, -4.7750, 2.0315),
        eps: NotNegative = 1e-7,
        ns_steps: Rounds = 5,
        adjust_lr_fn: AdjustLR = None,
    ) -> None:
        super().__init__(params, locals())

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add matrices with options of their own; see `Optimizer.add_param_group`."""
        params = checked_params(group.get("params", ()))
        for param in params:
            if param.ndim != 2:
                raise ShapeError(
                    f"Muon: parameter {param.name} has shape {param.shape}, expected two "
                    "dimensions. Give it to another optimizer, such as AdamW."
                )
        super().add_param_group({**group, "params": params})

    def counts_steps(self) -> bool:
        """No: every step is alike."""
        return False

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        updates: Update = []
        for param, grad in grads:
            buffer = self.state_of("momentum_buffer", param)
            moved = average(buffer, grad, group.momentum, param)
            ahead = average(moved, grad, group.momentum, param) if group["nesterov"] else moved
            even = _orthogonalized(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rate = ops.multiply(group.lr, _ratio(group["adjust_lr_fn"], param.shape))
            new = update.sgd(decayed(group, param), even, scalar(rate, param))
            updates += [(buffer, moved), (param, new)]
        return updates


def _orthogonalized(matrix: Any, coefficients: tuple[float, ...], steps: int, eps: float) -> Any:
    """The matrix with singular values near 1; the shorter side is multiplied by itself."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if tall else matrix
    x = ops.divide(x, ops.maximum(ops.sqrt(ops.sum(ops.square(x))), eps))
    for _ in range(steps):
        gram = ops.matmul(x, ops.transpose(x))
        change = ops.add(ops.multiply(gram, b), ops.multiply(ops.matmul(gram, gram), c))
        x = ops.add(ops.multiply(x, a), ops.matmul(change, x))
    return ops.transpose(x) if tall else x


def _ratio(name: str | None, shape: Shape) -> float:
    rows, columns = shape
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
