"""Lion (Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023)."""

from __future__ import annotations

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import Betas, NotNegative
from gpubp.optim.rules import average, decayed, scalar
from gpubp.optim.state import Cohort


class Lion(Optimizer):
    """Steps of one size along the sign of an average of gradients (arXiv:2302.06675, algorithm 2).

    w <- w (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g), then
    m <- beta2 m + (1 - beta2) g. PyTorch has none; the definition is the paper's.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0; the paper advises 3 to 10 times less than for AdamW.
        betas: weights of the average in the step and in the memory, each in [0, 1).
        weight_decay: decoupled, at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("exp_avg",)
    decouples = True

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-4,
        betas: Betas = (0.9, 0.99),
        weight_decay: NotNegative = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        updates: Update = []
        for param, grad in grads:
            memory = self.state_of("exp_avg", param)
            direction = ops.sign(average(memory, grad, group.momentum, param))
            m = update.ema(memory, grad, group["betas"][1])
            start = decayed(group, param)
            new = update.sgd(start, direction, scalar(group.lr, param))
            updates += [(memory, m), (param, new)]
        return updates
