"""Rules of views, and of other arrangements of the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.torch.rules import rule, same


def _axis(x: Any, dim: int, extra: int = 0) -> int:
    return dim % (len(x.shape) + extra) if len(x.shape) + extra else 0


@rule("alias", "contiguous", "to", "type_as", "_reshape_alias", view=True)
def alias(x: Any, *args: Any, **options: Any) -> Any:
    """The same numbers; the interpreter sees to shape and dtype."""
    dtype = next((a for a in [*args, options.get("dtype")] if isinstance(a, str)), None)
    like = next((a for a in args if hasattr(a, "dtype")), None)
    target = dtype or getattr(like, "dtype", x.dtype)
    return x if x.dtype == target else ops.astype(x, target)


@rule("clone", "lift_fresh_copy", "lift_fresh", "_to_copy")
def clone(x: Any, **options: Any) -> Any:
    """The same numbers, elsewhere: arrays are values, so they need no copy."""
    return ops.astype(x, options["dtype"]) if options.get("dtype") else x


@rule("detach", view=True)
def detach(x: Any) -> Any:
    """The same numbers, without a gradient."""
    return ops.stop_gradient(x)


@rule("view.default", "reshape", "_unsafe_view", "view", view=True)
def reshape(x: Any, shape: Sequence[int]) -> Any:
    """Of another shape."""
    return ops.reshape(x, tuple(shape))


@rule("reshape_as", "view_as", view=True)
def reshape_as(x: Any, other: Any) -> Any:
    """Of another array's shape."""
    return ops.reshape(x, tuple(other.shape))


@rule("ravel", view=True)
def ravel(x: Any) -> Any:
    """In a row."""
    return ops.reshape(x, (-1,))


@rule("flatten.using_ints", view=True)
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Some axes as one."""
    return ops.flatten(x, start_dim, end_dim) if len(x.shape) else ops.reshape(x, (1,))


@rule("unflatten.int", view=True)
def unflatten(x: Any, dim: int, sizes: Sequence[int]) -> Any:
    """One axis as several."""
    return ops.unflatten(x, dim, tuple(sizes))


@rule("squeeze", view=True)
def squeeze(x: Any, dim: Any = None) -> Any:
    """Without axes of size 1; others are passed over."""
    axes = range(len(x.shape)) if dim is None else dim if isinstance(dim, (list, tuple)) else (dim,)
    gone = {_axis(x, a) for a in axes}
    kept = [n for i, n in enumerate(x.shape) if i not in gone or n != 1]
    return ops.reshape(x, tuple(kept))


@rule("unsqueeze", view=True)
def unsqueeze(x: Any, dim: int) -> Any:
    """With one more axis, of size 1."""
    return ops.expand_dims(x, _axis(x, dim, 1))


@rule("expand", view=True)
def expand(x: Any, sizes: Sequence[int], implicit: bool = False) -> Any:
    """Repeated along axes of size 1; -1 keeps one."""
    extra = len(sizes) - len(x.shape)
    shape = [x.shape[i - extra] if n == -1 else n for i, n in enumerate(sizes)]
    return ops.broadcast_to(x, tuple(shape))


@rule("broadcast_tensors")
def broadcast_tensors(tensors: Sequence[Any]) -> Any:
    """All of one shape."""
    shape = np.broadcast_shapes(*[tuple(t.shape) for t in tensors])
    return tuple(t if tuple(t.shape) == shape else ops.broadcast_to(t, shape) for t in tensors)


@rule("broadcast_to", view=True)
def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    """Of another shape."""
    return ops.broadcast_to(x, tuple(shape))


@rule("expand_as", view=True)
def expand_as(x: Any, other: Any) -> Any:
    """Of another array's shape."""
    return ops.broadcast_to(x, tuple(other.shape))


@rule("permute", view=True)
def permute(x: Any, dims: Sequence[int]) -> Any:
    """Axes in another order."""
    return ops.transpose(x, tuple(_axis(x, d) for d in dims))


@rule("transpose.int", "swapaxes", "swapdims", view=True)
def transpose(x: Any, dim0: int, dim1: int) -> Any:
    """Two axes swapped."""
    return ops.swapaxes(x, dim0, dim1) if len(x.shape) else x


@rule("t", "numpy_T", "mT", "mH", "adjoint", "matrix_H", view=True)
def transposed(x: Any) -> Any:
    """The last two axes swapped (of what has no more of them, all)."""
    return ops.swapaxes(x, -2, -1) if len(x.shape) > 1 else x


@rule("movedim", "moveaxis", view=True)
def movedim(x: Any, source: Any, destination: Any) -> Any:
    """Axes elsewhere."""
    return ops.moveaxis(x, _many(source), _many(destination))


def _many(dims: Any) -> Any:
    return tuple(dims) if isinstance(dims, (list, tuple)) else dims


@rule("slice.Tensor", view=True)
def slice_of(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """A range along an axis."""
    return ops.getitem(x, (*[slice(None)] * _axis(x, dim), slice(start, end, step)))


@rule("narrow", view=True)
def narrow(x: Any, dim: int, start: int, length: int) -> Any:
    """A range along an axis, by its length."""
    begin = start % x.shape[dim] if start < 0 else start
    return slice_of(x, dim, begin, begin + length)


@rule("select.int", view=True)
def select(x: Any, dim: int, index: int) -> Any:
    """One place along an axis."""
    return ops.getitem(x, (*[slice(None)] * _axis(x, dim), index))


@rule("unbind.int", view=True)
def unbind(x: Any, dim: int = 0) -> Any:
    """Every place along an axis."""
    return tuple(ops.unbind(x, dim))


@rule("split.Tensor", "split_with_sizes", "split.sizes", view=True)
def split(x: Any, size: Any, dim: int = 0) -> Any:
    """Pieces of so many places, or of these."""
    return tuple(ops.split(x, _many(size), dim))


@rule("chunk", view=True)
def chunk(x: Any, chunks: int, dim: int = 0) -> Any:
    """So many pieces."""
    return tuple(ops.chunk(x, chunks, dim))


@rule("tensor_split.sections", "tensor_split.indices", view=True)
def tensor_split(x: Any, sections: Any, dim: int = 0) -> Any:
    """So many pieces, or pieces between these places."""
    return tuple(ops.tensor_split(x, _many(sections), dim))


@rule("diagonal", view=True)
def diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """A diagonal of two axes."""
    return ops.diagonal(x, offset, dim1, dim2)


@rule("unfold", view=True)
def windows(x: Any, dim: int, size: int, step: int) -> Any:
    """Windows along an axis, which become a last axis."""
    axis = _axis(x, dim)
    starts = range(0, int(x.shape[axis]) - size + 1, step)
    parts = [ops.moveaxis(slice_of(x, axis, s, s + size), axis, -1) for s in starts]
    return ops.stack(parts, axis)


@rule("cat", "concat", "concatenate")
def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Side by side; empty rows fit everything."""
    kept = [t for t in tensors if tuple(t.shape) != (0,)] or list(tensors[:1])
    return ops.concat(kept, dim)


@rule("stack")
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Along a new axis."""
    return ops.stack(list(tensors), dim)


@rule("hstack")
def hstack(tensors: Sequence[Any]) -> Any:
    """Along the second axis (the first of vectors)."""
    return ops.hstack(list(tensors))


@rule("vstack", "row_stack")
def vstack(tensors: Sequence[Any]) -> Any:
    """Along the first axis of matrices."""
    return ops.vstack(list(tensors))


@rule("repeat")
def repeat(x: Any, sizes: Sequence[int]) -> Any:
    """Again and again along each axis."""
    return ops.repeat(x, tuple(sizes))


@rule("tile")
def tile(x: Any, dims: Sequence[int]) -> Any:
    """Again and again, as NumPy's."""
    return ops.tile(x, tuple(dims))


@rule("repeat_interleave.self_int")
def repeat_interleave(x: Any, repeats: int, dim: Any = None, output_size: Any = None) -> Any:
    """Each place several times."""
    return ops.repeat_interleave(x, repeats, dim)


@rule("flip")
def flip(x: Any, dims: Sequence[int]) -> Any:
    """Axes backwards."""
    return ops.flip(x, tuple(dims))


@rule("roll")
def roll(x: Any, shifts: Any, dims: Any = ()) -> Any:
    """Places moved around."""
    return ops.roll(x, _many(shifts), _many(dims) or None)


@rule("rot90")
def rot90(x: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """Turned by right angles."""
    return ops.rot90(x, k, tuple(dims))


@rule("meshgrid.indexing", "meshgrid")
def meshgrid(tensors: Sequence[Any], indexing: str = "ij") -> Any:
    """Coordinates of a grid."""
    return tuple(ops.meshgrid(*tensors, indexing=indexing))


same(
    {
        "pixel_shuffle": ops.pixel_shuffle,
        "pixel_unshuffle": ops.pixel_unshuffle,
        "channel_shuffle": ops.channel_shuffle,
        "fliplr": ops.fliplr,
        "flipud": ops.flipud,
    }
)
