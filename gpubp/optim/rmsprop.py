"""RMSprop (Tieleman & Hinton, Coursera lecture 6.5, 2012), in torch's form."""

from __future__ import annotations

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import NotNegative
from gpubp.optim.rules import accumulated, scalar
from gpubp.optim.state import Cohort


class RMSprop(Optimizer):
    """Gradient descent scaled by a running average of squares, as torch.optim.RMSprop.

    v <- alpha v + (1 - alpha) g^2 and d = g / (sqrt(v) + eps), then w <- w - lr d, where g includes
    weight_decay w. Centered, v is replaced by v - a^2 with a <- alpha a + (1 - alpha) g (Graves,
    2013, arXiv:1308.0850). With momentum, b <- momentum b + d takes the place of d.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        alpha: decay of the averages, at least 0.
        eps: at least 0.
        weight_decay: L2 penalty, at least 0.
        momentum: at least 0.
        centered: divide by the deviation instead of the root mean square.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-2,
        alpha: NotNegative = 0.99,
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
        momentum: NotNegative = 0.0,
        centered: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """The average of squares; momentum and centering have one array more each."""
        wanted = (True, group.has_momentum, group["centered"])
        return tuple(name for name, on in zip(self.state_names, wanted, strict=True) if on)

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        updates: Update = []
        for param, grad in grads:
            squares = self.state_of("square_avg", param)
            v = update.ema_square(squares, grad, group["alpha"])
            updates.append((squares, v))
            if group["centered"]:
                means = self.state_of("grad_avg", param)
                mean = update.ema(means, grad, group["alpha"])
                updates.append((means, mean))
                v = ops.subtract(v, ops.square(mean))
            direction = ops.divide(grad, ops.add(ops.sqrt(v), group["eps"]))
            if group.has_momentum:
                buffer = self.state_of("momentum_buffer", param)
                direction = accumulated(buffer, direction, group.momentum, param)
                updates.append((buffer, direction))
            updates.append((param, update.sgd(param, direction, scalar(group.lr, param))))
        return updates
