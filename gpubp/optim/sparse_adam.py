"""SparseAdam: Adam that leaves alone the rows of a table that no sample has looked up."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.core import Array, Kind, Node
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.ops.index import SCATTER_ADD
from gpubp.optim.adam import corrections
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.options import Betas, NotNegative
from gpubp.optim.rules import average, scalar
from gpubp.optim.state import Cohort


class SparseAdam(Optimizer):
    """Adam for tables, as torch.optim.SparseAdam: moments and weights of touched rows only.

    Of rows that are in the gradient, m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2
    and w <- w - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps), where t counts all steps
    from 1; the others keep all three. Note where eps stands: not as in Adam.

    Which rows those are, the gradient says by itself: the ones that embeddings looked up. Where a
    gradient is no such sum (of a product, or one that was accumulated over batches) it has all
    rows; torch refuses it.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, at least 0.
        betas: decay of the moments, each in [0, 1).
        eps: at least 0.
        maximize: ascend instead.

    Raises:
        DataError: an option out of its range.
    """

    elementwise = False
    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, locals())

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of one group."""
        bias1, bias2 = corrections(group, cohort)
        size = ops.divide(ops.multiply(group.lr, ops.sqrt(bias2)), bias1)
        updates: Update = []
        for param, grad in grads:
            first, second = (self.state_of(name, param) for name in self.state_names)
            m = average(first, grad, group.momentum, param)
            v = update.ema_square(second, grad, group["betas"][1])
            w = update.adam(param, m, v, scalar(size, param), param.dtype.type(1), group["eps"])
            new = [(first, m), (second, v), (param, w)]
            touched = touched_rows(grad)
            if touched is not None:
                beside = ops.reshape(touched, (-1, *[1] * (len(param.shape) - 1)))
                new = [(slot, ops.where(beside, value, slot)) for slot, value in new]
            updates += new
        return updates


def touched_rows(grad: Array) -> Any:
    """Which rows of a gradient come from an index, (rows,) booleans; None if all may."""
    found = _indices(grad.node, grad.shape)
    if not found:
        return None
    flat = [ops.reshape(Array(grad.graph, node), (-1,)) for node in found]
    ones = [ops.ones_like(i, "int64") for i in flat]
    total = ops.scatter_add(ops.concat(ones), ops.concat(flat), grad.shape[0])
    return ops.greater(total, 0)


def _indices(node: Node, shape: tuple[int, ...]) -> list[Node]:
    """Indices of all sums at indices that a gradient is made of; none if another array is in it."""
    if node.spec is SCATTER_ADD and node.attrs["axis"] == 0:
        return [node.inputs[1]]
    if node.spec.kind is not Kind.ELEMENTWISE:
        return []
    wide = [source for source in node.inputs if source.shape == shape and shape]
    found = [_indices(source, shape) for source in wide]
    return list(dict.fromkeys(i for several in found for i in several)) if all(found) else []
