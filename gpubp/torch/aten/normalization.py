"""Rules of normalisation; running statistics move in the buffers that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp import ops
from gpubp.errors import ArgumentError
from gpubp.torch.cells import Cell, Held
from gpubp.torch.rules import rule


def _read(cell: Any) -> Any:
    return cell.read() if isinstance(cell, Cell) else cell


def _statistics(cell: Any) -> Any:
    """The buffer itself, which the op moves on."""
    if cell is None or isinstance(cell, Held):
        return _read(cell)
    raise ArgumentError("running statistics are computed in the model; expected its buffers.")


@rule("batch_norm", on_cells=True)
def batch_norm(
    x: Cell,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: Any,
    eps: float,
    cudnn_enabled: bool = True,
) -> Any:
    """Channels over the batch."""
    held = (_statistics if training else _read)(running_mean), _statistics(running_var)
    return ops.batch_norm(
        x.read(), *held, _read(weight), _read(bias), bool(training), momentum, eps
    )


@rule("instance_norm", on_cells=True)
def instance_norm(
    x: Cell,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Any:
    """Channels of each image by itself."""
    held = _statistics(running_mean), _statistics(running_var)
    return ops.instance_norm(
        x.read(), *held, _read(weight), _read(bias), bool(use_input_stats), momentum, eps
    )


@rule("layer_norm")
def layer_norm(
    x: Any,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Any:
    """The last axes of each sample."""
    return ops.layer_norm(x, tuple(shape), weight, bias, eps)


@rule("rms_norm")
def rms_norm(x: Any, shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """The last axes of each sample, by their root mean square."""
    return ops.rms_norm(x, tuple(shape), weight, eps)


@rule("group_norm")
def group_norm(
    x: Any,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Any:
    """Groups of channels of each sample."""
    return ops.group_norm(x, groups, weight, bias, eps)


@rule("_weight_norm")
def weight_norm(v: Any, g: Any, dim: int = 0) -> Any:
    """g v / |v|, with norms over all axes but one (or over all, of -1)."""
    return ops.multiply(v, ops.divide(g, norm_except_dim(v, 2, dim)))


@rule("norm_except_dim")
def norm_except_dim(v: Any, power: int = 2, dim: int = 0) -> Any:
    """Norms over all axes but one."""
    axes = tuple(a for a in range(len(v.shape)) if a != dim) if dim != -1 else None
    return ops.vector_norm(v, float(power), axes, dim != -1)
