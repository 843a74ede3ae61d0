"""Dropout: elements or whole channels left out at random, in training; composites."""

from __future__ import annotations

import math
from typing import Any

from gpubp.arguments import truth
from gpubp.core import describe
from gpubp.core.store import Slot
from gpubp.errors import DataError, ShapeError
from gpubp.ops.composite import SELU_ALPHA, SELU_SCALE
from gpubp.ops.elementwise import add, divide, finite, multiply, subtract
from gpubp.ops.logic import astype, greater_equal, where
from gpubp.ops.random import UNIFORM, Generator, draw
from gpubp.ops.spec import promote


def dropout(
    x: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Any:
    """Each element 0 with probability `p`, else divided by 1 - p (inverted dropout).

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014).

    Args:
        x: any shape.
        p: in [0, 1]; or a slot of one number (a `gpubp.nn.Buffer`), which programs read at every
            step and nobody checks: in [0, 1).
        training: if False, `x` is returned as it is.
        generator: default is the one that `manual_seed` seeds.

    Raises:
        DataError: `p` is outside [0, 1].
    """
    return _dropped("dropout", x, p, training, generator)


def dropout1d(
    x: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Any:
    """Whole channels of (N, C, L) or (C, L) 0, the others divided by 1 - p; see `dropout2d`."""
    return _dropped("dropout1d", x, p, training, generator, (3, 2))


def dropout2d(
    x: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Any:
    """Whole channels 0 with probability `p`, the others divided by 1 - p.

    Tompson et al., "Efficient Object Localization Using Convolutional Networks" (2015,
    arXiv:1411.4280).

    Args:
        x: (N, C, H, W); three axes are taken for (N, C, L), as torch takes them.
        p, training, generator: as for `dropout`.

    Raises:
        ShapeError: another number of axes.
        DataError: `p` is outside [0, 1].
    """
    return _dropped("dropout2d", x, p, training, generator, (4, None, 3))


def dropout3d(
    x: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Any:
    """Whole channels of (N, C, D, H, W) or (C, D, H, W) 0; see `dropout2d`."""
    return _dropped("dropout3d", x, p, training, generator, (5, 4))


def alpha_dropout(
    x: Any, p: float = 0.5, training: bool = False, generator: Generator | None = None
) -> Any:
    """Dropout that keeps mean 0 and variance 1, for models of SELUs.

    Elements that are dropped take the value SELU has far below 0, and all are scaled and moved
    (Klambauer et al., "Self-Normalizing Neural Networks", 2017).

    Args:
        x: any shape.
        p, training, generator: as for `dropout`.

    Raises:
        DataError: `p` is outside [0, 1].
    """
    return _dropped("alpha_dropout", x, p, training, generator, alpha=True)


def feature_alpha_dropout(
    x: Any, p: float = 0.5, training: bool = False, generator: Generator | None = None
) -> Any:
    """`alpha_dropout` of whole channels of (N, C, ...).

    Raises:
        ShapeError: x has fewer than two axes.
        DataError: `p` is outside [0, 1].
    """
    return _dropped("feature_alpha_dropout", x, p, training, generator, (0,), alpha=True)


def _dropped(
    op: str,
    x: Any,
    p: Any,
    training: Any,
    generator: Generator | None,
    ndims: tuple[int | None, ...] = (),
    alpha: bool = False,
) -> Any:
    if isinstance(p, Slot):
        return _dropped_by_slot(op, x, p, training, generator, _mask_shape(op, x, ndims), alpha)
    p = finite(op, "p", p)
    if not 0.0 <= p <= 1.0:
        raise DataError(f"{op}: p must be in [0, 1], got {p}.")
    (x,) = promote(x, floating=True)
    shape = _mask_shape(op, x, ndims)
    if not truth(op, "training", training) or p == 0.0:
        return x
    kept = greater_equal(draw(UNIFORM, shape, x.dtype, generator, x), p)
    if not alpha or p == 1.0:
        return where(kept, x * (1.0 if p == 1.0 else 1.0 / (1.0 - p)), 0.0)
    low = SELU_SCALE * SELU_ALPHA
    scale = 1.0 / math.sqrt((low * low * p + 1.0) * (1.0 - p))
    return add(where(kept, multiply(x, scale), -low * scale), low * scale * p)


def _dropped_by_slot(
    op: str,
    x: Any,
    p: Slot,
    training: Any,
    generator: Generator | None,
    shape: tuple[int, ...],
    alpha: bool,
) -> Any:
    """The same with a probability that is read at every step."""
    if alpha or p.shape != () or p.dtype.kind != "f":
        raise DataError(
            f"{op}: p is the slot {p.name}, {describe(p)}; expected a number"
            + ("." if alpha else ", or a slot of one float.")
        )
    (x,) = promote(x, floating=True)
    if not truth(op, "training", training):
        return x
    rate = astype(p, "float64")  # so that the numbers are those of a p that is a Python float
    kept = greater_equal(draw(UNIFORM, shape, x.dtype, generator, x), astype(rate, x.dtype))
    scale = astype(divide(1.0, subtract(1.0, rate)), x.dtype)
    return where(kept, multiply(x, scale), 0.0)


def _mask_shape(op: str, x: Any, ndims: tuple[int | None, ...]) -> tuple[int, ...]:
    """What is drawn: one number an element, or one a channel.

    Args:
        op: for errors.
        x: what is dropped from.
        ndims: of x with channels in axis 1, without a batch (channels in axis 0), and more of the
            first kind; (0,): any with channels in axis 1; none: elements.
    """
    shape = tuple(x.shape)
    if not ndims:
        return shape
    if ndims == (0,) and len(shape) > 1:
        return (*shape[:2], *[1] * (len(shape) - 2))
    if len(shape) not in ndims:
        wanted = " or ".join(str(n) for n in ndims if n) if ndims != (0,) else "at least 2"
        raise ShapeError(f"{op}: got x {describe(x)}, expected {wanted} axes.")
    channel = 0 if ndims.index(len(shape)) == 1 else 1
    return (*shape[: channel + 1], *[1] * (len(shape) - channel - 1))
