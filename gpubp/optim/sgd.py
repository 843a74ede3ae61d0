"""Stochastic gradient descent, with momentum (Polyak 1964) and Nesterov's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from gpubp import ops
from gpubp.core import Array
from gpubp.errors import DataError
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import NotNegative
from gpubp.optim.rules import accumulated, factor, scalar
from gpubp.optim.state import Cohort


class SGD(Optimizer):
    """w <- w - lr d, by torch.optim.SGD's definition.

    d is the gradient g + weight_decay w; with momentum it is the buffer
    b <- momentum b + (1 - dampening) g, which starts as b = g; with nesterov it is g + momentum b
    (Sutskever et al., ICML 2013).

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        momentum: at least 0.
        dampening: of the gradient in the momentum buffer.
        weight_decay: L2 penalty, at least 0.
        nesterov: needs momentum above 0 and dampening 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    state_names = ("momentum_buffer",)
    saves_step = False
    counts_by_group = True

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-3,
        momentum: NotNegative = 0.0,
        dampening: float = 0.0,
        weight_decay: NotNegative = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if nesterov is asked for without plain momentum."""
        momentum, dampening = options["momentum"], options["dampening"]
        if options["nesterov"] and (momentum <= 0.0 or dampening != 0.0):
            raise DataError(
                f"SGD: nesterov needs momentum above 0 and dampening 0, got momentum={momentum}, "
                f"dampening={dampening}."
            )

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """A momentum buffer, where there is momentum."""
        return self.state_names if group.has_momentum else ()

    def counts_steps(self) -> bool:
        """Only dampening needs it: the first gradient enters the buffer undampened."""
        return any(map(self.counts_in, self.param_groups))

    def counts_in(self, group: ParamGroup) -> bool:
        """Whether this group's momentum is dampened."""
        return bool(group.has_momentum and group["dampening"])

    def prepare(self) -> None:
        """As of every optimiser; buffers that were filled before dampening was on have begun."""
        super().prepare()
        for group in filter(self.counts_in, self.param_groups):
            for cohort in self._cohorts:
                if not int(cohort.count.value) and self._has_begun(group, cohort):
                    cohort.set_past((1, ()))

    def _has_begun(self, group: ParamGroup, cohort: Cohort) -> bool:
        """A gradient has come into the buffers: they are zeros until then."""
        mine = [p for p in group.params if p in cohort]
        buffers = (self._array("momentum_buffer", p) for p in mine)
        return any(buffer is not None and bool(buffer.any()) for buffer in buffers)

    def _saved_state(self, group: ParamGroup, param: Parameter) -> dict[str, NDArray[Any]]:
        if self.counts_in(group) or self._has_begun(group, self._cohorts.of(param)):
            return super()._saved_state(group, param)
        return {}

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        updates: Update = []
        for param, grad in grads:
            direction = grad
            if group.has_momentum:
                buffer = self.state_of("momentum_buffer", param)
                new = self._average(group, buffer, grad, param, cohort)
                updates.append((buffer, new))
                direction = new
                if group["nesterov"]:
                    momentum = factor(group.momentum, param)
                    direction = ops.add(grad, ops.multiply(new, momentum))
            updates.append((param, update.sgd(param, direction, scalar(group.lr, param))))
        return updates

    def _average(
        self, group: ParamGroup, buffer: Any, grad: Array, param: Parameter, cohort: Cohort
    ) -> Any:
        # A buffer of zeros gives b = g at the first step by itself, unless dampening shrinks it.
        damped = accumulated(buffer, grad, group.momentum, param, group["dampening"])
        if not group["dampening"]:
            return damped
        return ops.where(ops.equal(cohort.count, 0), grad, damped)
