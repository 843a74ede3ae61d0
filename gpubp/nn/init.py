"""The one place where initial weights are drawn; names and definitions are those of torch.nn.init.

They come from the default random generator of the ops, so `gp.manual_seed` covers them too: each
draw is a function of the generator's (seed, counter) and advances the counter by one. A fresh
process starts from seed 0, so two runs of one script build the same model.

Functions that end in an underscore write into a parameter (or buffer) and return it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.core import checked_dtype, describe
from gpubp.errors import DataError, DTypeError, ShapeError, unknown_name
from gpubp.nn.gain import calculate_gain as calculate_gain
from gpubp.nn.parameter import Buffer
from gpubp.ops import random as random_ops
from gpubp.ops.spec import require_possible


def manual_seed(seed: int) -> None:
    """Seed initial weights and every op that draws from the default generator.

    Args:
        seed: an int in [0, 2**63).

    Raises:
        DataError: any other seed.
    """
    random_ops.manual_seed(seed)


def _rng(generator: random_ops.Generator | None = None) -> np.random.Generator:
    """NumPy's generator for one draw, because a large layer takes Philox in plain NumPy seconds."""
    state = random_ops.state_of(generator).value
    rng = np.random.default_rng([int(word) for word in state])
    state[1] += 1
    return rng


def uniform(shape: tuple[int, ...], bound: float, dtype: Any = "float32") -> NDArray[Any]:
    """Numbers uniform in [-bound, bound), drawn in float64 whatever the dtype."""
    found = floating(dtype, shape)
    return _rng().uniform(-bound, bound, shape).astype(found)


def normal(shape: tuple[int, ...], std: float, dtype: Any = "float32") -> NDArray[Any]:
    """Numbers of mean 0, drawn in float64 whatever the dtype."""
    found = floating(dtype, shape)
    return _rng().normal(0.0, std, shape).astype(found)


def filled(shape: int | tuple[int, ...], value: float, dtype: Any) -> NDArray[Any]:
    """One number everywhere."""
    return np.full(shape, value, floating(dtype, shape))


def floating(dtype: Any, shape: int | tuple[int, ...] = ()) -> np.dtype[Any]:
    """The dtype of trained weights of this shape.

    Raises:
        DTypeError: it is neither float32 nor float64.
        ShapeError: such weights are larger than any memory.
    """
    found = checked_dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"weights are float32 or float64, got {found}.")
    require_possible("weights", shape if isinstance(shape, tuple) else (shape,), found)
    return found


def fan_in_bound(fan_in: int) -> float:
    """The bound that PyTorch's Linear uses: 1 / sqrt(fan_in), for fan_in of at least 1.

    It is Kaiming's uniform bound (He et al. 2015, arXiv:1502.01852) sqrt(6 / ((1 + a^2) fan_in))
    at a = sqrt(5).
    """
    return 1.0 / math.sqrt(fan_in)


@checked
def uniform_(
    tensor: Buffer, a: float = 0.0, b: float = 1.0, generator: random_ops.Generator | None = None
) -> Buffer:
    """Numbers uniform in [a, b). Raises DataError unless a <= b, both finite."""
    if not (math.isfinite(a) and math.isfinite(b) and a <= b):
        raise DataError(f"uniform_: expected finite a <= b, got a={a}, b={b}.")
    tensor.value = _rng(generator).uniform(a, b, tensor.shape)
    return tensor


@checked
def normal_(
    tensor: Buffer,
    mean: float = 0.0,
    std: float = 1.0,
    generator: random_ops.Generator | None = None,
) -> Buffer:
    """Normal numbers. Raises DataError if `std` is negative."""
    tensor.value = _rng(generator).normal(mean, _checked_std("normal_", std), tensor.shape)
    return tensor


@checked
def trunc_normal_(
    tensor: Buffer,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: random_ops.Generator | None = None,
) -> Buffer:
    """Normal numbers, those outside [a, b] drawn again (by the inverse distribution function).

    Args:
        tensor: what to fill.
        mean, std: of the normal distribution before it is cut; std above 0.
        a, b: the limits, not relative to mean and std.
        generator: default is the one that `manual_seed` seeds.

    Raises:
        DataError: std is not positive, or a is not below b.
    """
    from scipy.special import ndtr, ndtri

    if not (_checked_std("trunc_normal_", std) > 0 and a < b):
        raise DataError(f"trunc_normal_: expected std > 0 and a < b, got {std}, {a} and {b}.")
    # In the upper tail the distribution function is 1 to rounding: draw from its mirror image.
    flip = -1.0 if a > mean else 1.0
    low, high = sorted((flip * (a - mean) / std, flip * (b - mean) / std))
    share = _rng(generator).uniform(ndtr(low), ndtr(high), tensor.shape)
    tensor.value = np.clip(mean + flip * std * ndtri(share), a, b)
    return tensor


@checked
def constant_(tensor: Buffer, val: float) -> Buffer:
    """One number everywhere."""
    tensor.value = np.full(tensor.shape, val)
    return tensor


@checked
def ones_(tensor: Buffer) -> Buffer:
    """1 everywhere."""
    return constant_(tensor, 1.0)


@checked
def zeros_(tensor: Buffer) -> Buffer:
    """0 everywhere."""
    return constant_(tensor, 0.0)


@checked
def eye_(tensor: Buffer) -> Buffer:
    """The identity matrix. Raises ShapeError unless there are two axes."""
    if tensor.ndim != 2:
        raise ShapeError(f"eye_: got {describe(tensor)}, expected two axes.")
    tensor.value = np.eye(tensor.shape[0], tensor.shape[1])
    return tensor


@checked
def xavier_uniform_(
    tensor: Buffer, gain: float = 1.0, generator: random_ops.Generator | None = None
) -> Buffer:
    """Uniform in +-gain sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio, 2010).

    Raises:
        ShapeError: the weight has fewer than two axes.
    """
    bound = gain * math.sqrt(6.0 / sum(_fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound, generator)


@checked
def xavier_normal_(
    tensor: Buffer, gain: float = 1.0, generator: random_ops.Generator | None = None
) -> Buffer:
    """Normal with spread gain sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio, 2010).

    Raises:
        ShapeError: the weight has fewer than two axes.
    """
    std = gain * math.sqrt(2.0 / sum(_fans("xavier_normal_", tensor)))
    return normal_(tensor, 0.0, std, generator)


@checked
def kaiming_uniform_(
    tensor: Buffer,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: random_ops.Generator | None = None,
) -> Buffer:
    """Uniform in +-gain sqrt(3 / fan) (He et al., 2015, arXiv:1502.01852).

    Args:
        tensor: the weight, (out, in, ...).
        a: the negative slope of the leaky ReLU that follows.
        mode: "fan_in" or "fan_out": which of the passes keeps its variance.
        nonlinearity: see `calculate_gain`.
        generator: default is the one that `manual_seed` seeds.

    Raises:
        ShapeError: the weight has fewer than two axes.
        UnknownNameError: an unknown mode or nonlinearity.
    """
    bound = math.sqrt(3.0) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


@checked
def kaiming_normal_(
    tensor: Buffer,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: random_ops.Generator | None = None,
) -> Buffer:
    """Normal with spread gain / sqrt(fan); arguments as for `kaiming_uniform_`."""
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return normal_(tensor, 0.0, std, generator)


@checked
def orthogonal_(
    tensor: Buffer, gain: float = 1.0, generator: random_ops.Generator | None = None
) -> Buffer:
    """Orthonormal rows or columns times `gain` (Saxe et al., 2013, arXiv:1312.6120).

    Axes after the first are taken as one. Signs are fixed so that the matrix is uniformly
    distributed (Mezzadri, 2006, arXiv:math-ph/0609050).

    Raises:
        ShapeError: there are fewer than two axes.
    """
    rows, columns = _matrix_shape("orthogonal_", tensor)
    drawn = _rng(generator).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)
    tensor.value = (gain * (q if rows >= columns else q.T)).reshape(tensor.shape)
    return tensor


def _checked_std(name: str, std: float) -> float:
    if not 0 <= std < math.inf:
        raise DataError(f"{name}: std must be finite and not negative, got {std}.")
    return std


def _matrix_shape(name: str, tensor: Buffer) -> tuple[int, int]:
    if tensor.ndim < 2 or tensor.size == 0:
        raise ShapeError(
            f"{name}: got {tensor.name} {describe(tensor)}, expected a weight of at least two axes."
        )
    return tensor.shape[0], tensor.size // tensor.shape[0]


def _fans(name: str, tensor: Buffer) -> tuple[int, int]:
    """Inputs and outputs of a unit, for a weight (out, in, ...)."""
    out, fan_in = _matrix_shape(name, tensor)
    return fan_in, out * (fan_in // tensor.shape[1])


def _kaiming_std(name: str, tensor: Buffer, a: float, mode: str, nonlinearity: str) -> float:
    modes = ("fan_in", "fan_out")
    if mode not in modes:
        raise unknown_name("mode", mode, modes)
    fan = _fans(name, tensor)[modes.index(mode)]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)
