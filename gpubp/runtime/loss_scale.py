"""Dynamic loss scaling: gradients that are too small for float16, made larger and then smaller.

P. Micikevicius et al., "Mixed precision training" (ICLR 2018), section 3.2; numbers and names are
those of torch.amp.GradScaler. All of it happens inside the program: the loss is multiplied by
`scale` before its gradients are taken, and these are divided by it; where one is not finite the
whole update is skipped (parameters, moments, step counts, schedules) and the scale shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.arguments import checked, reading
from gpubp.core import Array
from gpubp.core.noted import Noted
from gpubp.core.store import Slot
from gpubp.errors import DataError


def _checked_growth(_: Any, factor: Any) -> float:
    if not 1 <= factor < np.inf:
        raise DataError(f"growth_factor is {factor}, expected a finite number of at least 1.")
    return float(factor)


def _checked_backoff(_: Any, factor: Any) -> float:
    if not 0 < factor < 1:
        raise DataError(f"backoff_factor is {factor}, expected a number between 0 and 1.")
    return float(factor)


def _checked_interval(_: Any, updates: Any) -> int:
    if updates < 1:
        raise DataError(f"growth_interval is {updates}, expected at least 1.")
    return int(updates)


class LossScale:
    """The scale of one or more steps' losses.

    Args:
        init_scale: to start with.
        growth_factor: the scale is multiplied by it after `growth_interval` good updates.
        backoff_factor: it is multiplied by this one after a skipped update.
        growth_interval: good updates in a row.

    Attributes:
        scale: slot, float32 scalar.
        good: slot, int64 scalar: good updates since the scale last changed.
        skipped: slot, int64 scalar: updates that were skipped.

    Raises:
        DataError: an argument out of its range.
    """

    growth_factor = Noted(_checked_growth)
    backoff_factor = Noted(_checked_backoff)
    growth_interval = Noted(_checked_interval)

    @checked
    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        if not 0 < init_scale < np.inf:
            raise DataError(f"init_scale is {init_scale}, expected a finite number above 0.")
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval = growth_interval
        self.scale = Slot("loss_scale", init_scale, np.float32)
        self.good = Slot("loss_scale_good", 0, np.int64)
        self.skipped = Slot("loss_scale_skipped", 0, np.int64)

    def scaled(self, loss: Any) -> Any:
        """The loss whose gradients are taken (inside a trace)."""
        return ops.multiply(loss, ops.astype(self.scale, loss.dtype))

    def unscaled(self, grads: Sequence[Array]) -> tuple[list[Array], Array]:
        """(the gradients themselves, whether all are finite: a boolean scalar)."""
        out = [ops.divide(g, ops.astype(self.scale, g.dtype)) for g in grads]
        zeros = [ops.astype(ops.sum(ops.multiply(g, 0.0)), "float32") for g in out]
        total = zeros[0]
        for zero in zeros[1:]:
            total = ops.add(total, zero)
        return out, ops.equal(total, 0.0)

    def emit(self, finite: Array) -> list[tuple[Slot, Array]]:
        """How the scale moves on."""
        more = ops.add(self.good, 1)
        full = ops.equal(more, self.growth_interval)
        grown = ops.where(full, ops.multiply(self.scale, self.growth_factor), self.scale)
        return [
            (self.scale, ops.where(finite, grown, ops.multiply(self.scale, self.backoff_factor))),
            (self.good, ops.where(ops.logical_and(finite, ops.logical_not(full)), more, 0)),
            (self.skipped, ops.add(self.skipped, ops.where(finite, 0, 1))),
        ]

    def state_dict(self) -> dict[str, Any]:
        """The numbers that change: {"scale", "good", "skipped"}."""
        return {
            "scale": float(self.scale.value),
            "good": int(self.good.value),
            "skipped": int(self.skipped.value),
        }

    @reading("the state of a LossScale")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state."""
        scale, good, skipped = (state_dict[k] for k in ("scale", "good", "skipped"))
        self.scale.value, self.good.value, self.skipped.value = scale, good, skipped


def as_loss_scale(given: LossScale | str | float | None) -> LossScale | None:
    """From the argument `loss_scale` of `compile_step`.

    Raises:
        DataError: neither a LossScale, "dynamic", a number above 0, nor None.
    """
    if given is None or isinstance(given, LossScale):
        return given
    if given == "dynamic":
        return LossScale()
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return LossScale(given, growth_factor=1.0)
    raise DataError(f'loss_scale is {given!r}, expected "dynamic", a number, or a gp.LossScale.')
