"""Adafactor (Shazeer & Stern, ICML 2018, arXiv:1804.04235), in torch's form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from gpubp import ops
from gpubp.core import Array, Shape
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import NotNegative, Range
from gpubp.optim.rules import decayed, scalar
from gpubp.optim.state import Cohort


def _are_eps(eps: Sequence[Any]) -> bool:
    first, second = eps if len(eps) == 2 else (-1.0, -1.0)
    return bool(first is None or 0.0 <= first < math.inf) and bool(0.0 <= second < math.inf)


Decay = Annotated[float, Range("at most 0", lambda value: value <= 0.0)]
Eps = Annotated[
    tuple[float | None, float],
    Range("(None or a number of at least 0, a number of at least 0)", _are_eps),
]
Threshold = Annotated[float, Range("at least 1", lambda value: value >= 1.0)]


class Adafactor(Optimizer):
    """Adam's second moment of matrices as an outer product of two vectors, as torch's Adafactor.

    With t counting steps from 1 and b = 1 - t^beta2_decay: of a matrix (or the last two axes) R and
    C are averages, with decay b, of the means of g^2 over its rows and columns, and
    V = R C / max(mean(R), eps[0]); of a vector V is the average of g^2. Then
    u = g / sqrt(max(V, eps[0]^2)), clipped to u / max(1, rms(u) / d), and
    w <- w - max(eps[1], rms(w)) min(lr, 1 / sqrt(t)) u, after w <- w (1 - lr weight_decay).

    Args:
        params: parameters, or groups of them.
        lr: the largest step, relative to a parameter's root mean square; at least 0.
        beta2_decay: at most 0.
        eps: (eps1, eps2), at least 0: what keeps from dividing by 0 (None: the spacing of numbers
            of the parameter's dtype at 1), and the least root mean square of a parameter.
        d: the largest root mean square of an update before it is scaled, at least 1.
        weight_decay: decoupled from the gradient, at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    elementwise = False
    state_names = ("row_var", "col_var", "variance")
    decouples = True

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-2,
        beta2_decay: Decay = -0.8,
        eps: Eps = (None, 1e-3),
        d: Threshold = 1.0,
        weight_decay: NotNegative = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def state_shape(self, name: str, param: Parameter) -> Shape | None:
        """One number a row and one a column of a matrix; one an element of a vector."""
        if (name == "variance") != (param.ndim < 2):
            return None
        if name == "variance":
            return param.shape
        rows, columns = param.shape[-2:]
        return (*param.shape[:-2], *((rows, 1) if name == "row_var" else (1, columns)))

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        t = ops.astype(cohort.next(), np.float64)
        fresh = ops.power(t, group["beta2_decay"])
        largest = ops.minimum(group.lr, ops.divide(1.0, ops.sqrt(t)))
        updates: Update = []
        for param, grad in grads:
            eps1, eps2 = group["eps"]
            eps1 = float(np.finfo(param.dtype).eps) if eps1 is None else eps1
            moved, variance = self._variance(param, grad, scalar(fresh, param), eps1)
            step = ops.divide(grad, ops.sqrt(ops.maximum(variance, eps1 * eps1)))
            size = ops.multiply(ops.maximum(_rms(param), eps2), scalar(largest, param))
            clipped = ops.maximum(ops.divide(_rms(step), group["d"]), 1.0)
            new = update.sgd(decayed(group, param), step, ops.divide(size, clipped))
            updates += [*moved, (param, new)]
        return updates

    def _variance(
        self, param: Parameter, grad: Array, fresh: Any, eps1: float
    ) -> tuple[Update, Array]:
        """The state with this gradient in it, and the second moment that it stands for."""
        square = ops.square(grad)
        if param.ndim < 2:
            variance = self._toward("variance", param, square, fresh)
            return [variance], variance[1]
        rows = self._toward("row_var", param, ops.mean(square, -1, keepdims=True), fresh)
        columns = self._toward("col_var", param, ops.mean(square, -2, keepdims=True), fresh)
        scale = ops.maximum(ops.mean(rows[1], -2, keepdims=True), eps1)
        return [rows, columns], ops.divide(ops.multiply(rows[1], columns[1]), scale)

    def _toward(self, name: str, param: Parameter, value: Array, share: Any) -> tuple[Any, Array]:
        state = self.state_of(name, param)
        moved = ops.multiply(ops.subtract(value, state), share)
        return state, ops.add(state, moved)


def _rms(x: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(x)))
