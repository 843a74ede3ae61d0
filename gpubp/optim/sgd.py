"""Stochastic gradient descent, with momentum (Polyak 1964) and Nesterov's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp import ops
from gpubp.core import Array
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update, require, scalar
from gpubp.optim.group import ParamGroup, Params


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

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if an option is out of its range."""
        for name in ("lr", "momentum", "weight_decay"):
            value = options[name]
            require(value >= 0.0, f"SGD: {name} is {value}, expected at least 0.")
        plain = options["momentum"] <= 0.0 or options["dampening"] != 0.0
        require(
            not (options["nesterov"] and plain),
            f"SGD: nesterov needs momentum above 0 and dampening 0, got momentum="
            f"{options['momentum']}, dampening={options['dampening']}.",
        )

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """A momentum buffer, where there is momentum."""
        return self.state_names if group["momentum"] else ()

    def counts_steps(self) -> bool:
        """Only dampening needs it: the first gradient enters the buffer undampened."""
        return any(g["momentum"] and g["dampening"] for g in self.param_groups)

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], new_count: Array | None
    ) -> Update:
        """Append the update of one group."""
        updates: Update = []
        for param, grad in grads:
            direction = grad
            if group["momentum"]:
                buffer = self.state_of("momentum_buffer", param)
                average = self._average(group, buffer, grad)
                updates.append((buffer, average))
                direction = average
                if group["nesterov"]:
                    direction = ops.add(grad, ops.multiply(average, group["momentum"]))
            updates.append((param, update.sgd(param, direction, scalar(group.lr, param))))
        return updates

    def _average(self, group: ParamGroup, buffer: Any, grad: Array) -> Any:
        # A buffer of zeros gives b = g at the first step by itself, unless dampening shrinks it.
        damped = update.momentum(buffer, grad, group["momentum"], group["dampening"])
        if not group["dampening"]:
            return damped
        return ops.where(ops.equal(self.step_count, 0), grad, damped)
