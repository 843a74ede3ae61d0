"""Rules of convolutions, pools, images, look-ups of rows and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpubp import ops
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError
from gpubp.nn import functional
from gpubp.torch.cells import Cell, Held
from gpubp.torch.rules import rule, same

same({f"conv_transpose{n}d": getattr(ops, f"conv_transpose{n}d") for n in (1, 2, 3)})
same(
    {"conv_transpose2d.input": ops.conv_transpose2d, "conv_transpose3d.input": ops.conv_transpose3d}
)


def _pair(value: Any) -> Any:
    """A tuple for a list; None for an empty one."""
    if isinstance(value, (list, tuple)):
        return tuple(value) if len(value) else None
    return value


def _batched(fn: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """Also of one sample without a batch."""

    def compute(x: Any, *args: Any) -> Any:
        args = tuple(map(_pair, args))
        if len(x.shape) == axes + 2:
            return fn(x, *args)
        found = fn(ops.expand_dims(x, 0), *args)
        return (
            tuple(ops.squeeze(f, 0) for f in found)
            if isinstance(found, tuple)
            else (ops.squeeze(found, 0))
        )

    return compute


def _convolution(n: int) -> None:
    fn = _batched(getattr(ops, f"conv{n}d"), n)

    def conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        return fn(x, weight, bias, stride, padding, dilation, groups)

    rule(f"conv{n}d", f"conv{n}d.padding")(conv)


def _transposed(n: int) -> None:
    fn = _batched(getattr(ops, f"conv_transpose{n}d"), n)

    def conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        return fn(x, weight, bias, stride, padding, output_padding, groups, dilation)

    for name in (f"conv_transpose{n}d", f"conv_transpose{n}d.input"):
        rule(name)(conv)


def _pools(n: int) -> None:
    largest = getattr(ops, f"max_pool{n}d")
    average = _batched(getattr(ops, f"avg_pool{n}d"), n)

    def pool(
        x: Any,
        kernel: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        fn = _batched(largest, n)
        return fn(x, kernel, stride, padding, dilation, bool(ceil_mode))

    def with_indices(
        x: Any,
        kernel: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        fn = _batched(largest, n)
        return fn(x, kernel, stride, padding, dilation, bool(ceil_mode), True)

    def mean(x: Any, *args: Any, **options: Any) -> Any:
        return average(x, *args, *options.values())

    rule(f"max_pool{n}d")(pool)
    rule(f"max_pool{n}d_with_indices")(with_indices)
    rule(f"avg_pool{n}d")(mean)
    rule(f"adaptive_avg_pool{n}d")(_batched(getattr(ops, f"adaptive_avg_pool{n}d"), n))
    adaptive = getattr(ops, f"adaptive_max_pool{n}d")
    rule(f"adaptive_max_pool{n}d")(_batched(lambda x, size: adaptive(x, size, True), n))


for _n in (1, 2, 3):
    _convolution(_n)
    _transposed(_n)
    _pools(_n)


@rule("im2col")
def unfold(x: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """Windows of images as columns."""
    return ops.unfold(x, _pair(kernel), _pair(dilation), _pair(padding), _pair(stride))


@rule("col2im")
def fold(x: Any, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Any:
    """Columns added up to images."""
    return ops.fold(x, _pair(size), _pair(kernel), _pair(dilation), _pair(padding), _pair(stride))


@rule("pad")
def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    """Numbers around."""
    return ops.pad(x, tuple(pad), mode, value)


@rule("constant_pad_nd")
def constant_pad(x: Any, pad: Sequence[int], value: Any = 0) -> Any:
    """One number around."""
    return ops.pad(x, tuple(pad), "constant", value)


for _n in (1, 2, 3):
    rule(f"reflection_pad{_n}d")(lambda x, pad: ops.pad(x, tuple(pad), "reflect"))
    rule(f"replication_pad{_n}d")(lambda x, pad: ops.pad(x, tuple(pad), "replicate"))


def _resized(mode: str) -> Callable[..., Any]:
    aligns = mode != "nearest"

    def resize(x: Any, size: Any, *rest: Any) -> Any:
        align, factors = (bool(rest[0]), rest[1:]) if aligns else (None, rest)
        given = factors[0] if len(factors) == 1 else [f for f in factors if f is not None]
        if size is not None:
            return ops.interpolate(x, tuple(size), None, mode, align)
        return ops.interpolate(x, None, tuple(given), mode, align)

    return resize


for _mode, _names in {
    "nearest": ("nearest1d", "nearest2d", "nearest3d"),
    "linear": ("linear1d",),
    "bilinear": ("bilinear2d",),
    "trilinear": ("trilinear3d",),
    "bicubic": ("bicubic2d",),
}.items():
    for _kind in _names:
        rule(f"upsample_{_kind}", f"upsample_{_kind}.vec")(_resized(_mode))


@rule("grid_sampler")
def grid_sampler(x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
    """Pixels at points."""
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    return ops.grid_sample(x, grid, modes[mode], paddings[padding], bool(align_corners))


@rule("affine_grid_generator")
def affine_grid(theta: Any, size: Sequence[int], align_corners: bool) -> Any:
    """The points of transformed images."""
    return ops.affine_grid(theta, tuple(size), bool(align_corners))


@rule("embedding")
def embedding(
    weight: Any,
    indices: Any,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of a table."""
    padding = None if padding_idx < 0 else padding_idx
    return functional.embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq)


@rule("embedding_renorm_", on_cells=True)
def embedding_renorm(weight: Cell, indices: Cell, max_norm: float, norm_type: float) -> Any:
    """Rows of a table that are too long are shortened, in the table."""
    table = weight.slot if isinstance(weight, Held) else None
    if not isinstance(table, Slot):
        raise ArgumentError("max_norm needs a table that is a parameter.")
    functional.embedding(indices.read(), table, None, max_norm, norm_type)
    return weight


@rule("embedding_bag", "embedding_bag.padding_idx")
def embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Sums, means or extremes of rows of a table; what torch returns beside them is not used."""
    found = functional.embedding_bag(
        indices,
        weight,
        offsets,
        scale_grad_by_freq=bool(scale_grad_by_freq),
        mode=("sum", "mean", "max")[mode],
        per_sample_weights=per_sample_weights,
        include_last_offset=bool(include_last_offset),
        padding_idx=None if padding_idx is None or padding_idx < 0 else padding_idx,
    )
    return found, None, None, None


@rule("scaled_dot_product_attention")
def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q k^T scale + mask) v."""
    return ops.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )
