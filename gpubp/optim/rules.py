"""What update rules share: scalars in the parameter's dtype, decay, averages."""

from __future__ import annotations

from typing import Any

from gpubp import ops
from gpubp.core import Array
from gpubp.core.store import Slot
from gpubp.nn.parameter import Parameter
from gpubp.ops import update
from gpubp.optim.group import ParamGroup


def scalar(value: Any, like: Parameter) -> Any:
    """A float64 scalar cast to a parameter's dtype."""
    return ops.astype(value, like.dtype)


def factor(value: Any, like: Parameter) -> Any:
    """A number as it is, a slot as a scalar of a parameter's dtype."""
    return scalar(value, like) if isinstance(value, Slot) else value


def adjusted(group: ParamGroup, param: Parameter, grad: Array, decoupled: bool) -> Any:
    """The gradient to descend: sign first, then L2 weight decay g + wd w, in torch's order."""
    signed = ops.negative(grad) if group.get("maximize", False) else grad
    decay = 0.0 if decoupled else group.decay
    if not isinstance(decay, Slot) and not decay:
        return signed
    return ops.add(signed, ops.multiply(param, factor(decay, param)))


def decayed(group: ParamGroup, param: Parameter, decoupled: bool = True) -> Any:
    """w (1 - lr wd) if weight decay is on and decoupled (Loshchilov & Hutter, ICLR 2019), else w.

    It shrinks the weights themselves, beside the gradient step and by the learning rate alone.
    """
    decay = group.decay
    if not decoupled or (not isinstance(decay, Slot) and not decay):
        return param
    kept = ops.subtract(1.0, ops.multiply(group.lr, decay))
    return ops.multiply(param, scalar(kept, param))


def average(m: Any, g: Any, decay: Any, like: Parameter) -> Any:
    """decay m + (1 - decay) g, where decay is a number or a slot."""
    if not isinstance(decay, Slot):
        return update.ema(m, g, decay)
    rest = scalar(ops.subtract(1.0, decay), like)
    return ops.add(ops.multiply(m, scalar(decay, like)), ops.multiply(g, rest))


def accumulated(buffer: Any, g: Any, momentum: Any, like: Parameter, dampening: float = 0.0) -> Any:
    """momentum b + (1 - dampening) g, where momentum is a number or a slot."""
    if not isinstance(momentum, Slot):
        return update.momentum(buffer, g, momentum, dampening)
    new = ops.multiply(g, 1.0 - dampening) if dampening else g
    return ops.add(ops.multiply(buffer, scalar(momentum, like)), new)
