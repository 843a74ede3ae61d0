"""Adadelta (Zeiler, 2012, arXiv:1212.5701), in torch's form."""

from __future__ import annotations

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import NotNegative, Share
from gpubp.optim.rules import scalar
from gpubp.optim.state import Cohort


class Adadelta(Optimizer):
    """Steps in units of the weights, as torch.optim.Adadelta.

    v <- rho v + (1 - rho) g^2; d = sqrt(u + eps) / sqrt(v + eps) g; u <- rho u + (1 - rho) d^2;
    w <- w - lr d, where g includes weight_decay w.

    Args:
        params: parameters, or groups of them.
        lr: scales d, at least 0.
        rho: decay of both averages, in [0, 1].
        eps: at least 0.
        weight_decay: L2 penalty, at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("square_avg", "acc_delta")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1.0,
        rho: Share = 0.9,
        eps: NotNegative = 1e-6,
        weight_decay: NotNegative = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        rho, eps = group["rho"], group["eps"]
        updates: Update = []
        for param, grad in grads:
            squares = self.state_of("square_avg", param)
            deltas = self.state_of("acc_delta", param)
            v = update.ema_square(squares, grad, rho)
            ratio = ops.divide(ops.sqrt(ops.add(deltas, eps)), ops.sqrt(ops.add(v, eps)))
            delta = ops.multiply(ratio, grad)
            updates += [(squares, v), (deltas, update.ema_square(deltas, delta, rho))]
            updates.append((param, update.sgd(param, delta, scalar(group.lr, param))))
        return updates
