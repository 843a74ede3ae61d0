"""What an exported function is called with: examples or shapes, the axes of the batch, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.arguments import shown
from gpubp.core import ArrayType, checked_dtype, tree
from gpubp.errors import ArgumentError, ShapeError

_USUAL = 2  # a batch where nobody says how large


class Signature:
    """The inputs of a function.

    Args:
        given: for each argument an array, a shape of float32 (None where the batch is), or nested
            tuples and dicts of arrays.
        batch_axis: where the batch is in arrays, one number for all or one an array (None: it has
            none).
        input_names, output_names: in order; others are made up.

    Attributes:
        batch: the size of the batch in the examples.
        axes: the axis of the batch, for each array.
        names: of the arrays.

    Raises:
        ArgumentError, ShapeError: no arrays, another number of axes or names, an axis that is not
            there.
    """

    def __init__(
        self,
        given: Sequence[Any],
        batch_axis: Any,
        input_names: Sequence[str] | None,
        output_names: Sequence[str] | None,
    ) -> None:
        if not given:
            raise ArgumentError(
                "got nothing to call the model with: give an example, or a shape such as "
                "(None, 784), for each of its inputs."
            )
        leaves, self._structure = tree.flatten([_of_shape(g) for g in given])
        self._leaves = [_leaf(leaf) for leaf in leaves]
        self.axes = self._axes(batch_axis)
        self.batch = self._batch()
        self.names = _named("input", input_names, len(self._leaves), "arrays go in")
        self._output_names = output_names

    @property
    def has_batch(self) -> bool:
        return any(axis is not None for axis in self.axes)

    def types(self, batch: int) -> Any:
        """The arguments as types, for a batch of this size."""
        found = []
        for (shape, dtype), axis in zip(self._leaves, self.axes, strict=True):
            sizes = tuple(batch if i == axis else n for i, n in enumerate(shape))
            found.append(ArrayType(tuple(_USUAL if n is None else n for n in sizes), dtype))
        return tree.unflatten(self._structure, found)

    def batches(self) -> list[int]:
        """Three sizes to compare: none of them 1, which broadcasts."""
        first = max(self.batch, 2)
        return [first, first + 1, first + 3]

    def outputs(self, structure: Any) -> list[str]:
        """Names of what the function returns, from the structure of it."""
        hints = _paths(structure)
        return _named("output", self._output_names, len(hints), "arrays come out", hints)

    def _axes(self, given: Any) -> list[int | None]:
        marked = [
            next((i for i, n in enumerate(shape) if n is None), None) for shape, _ in self._leaves
        ]
        if isinstance(given, (tuple, list)):
            if len(given) != len(self._leaves):
                raise ArgumentError(
                    f"batch_axis has {len(given)} numbers, expected one for each of "
                    f"{len(self._leaves)} arrays."
                )
            return [_axis(a, shape) for a, (shape, _) in zip(given, self._leaves)]
        if any(axis is not None for axis in marked) or given is None:
            return marked
        first = next((shape for shape, _ in self._leaves if shape), ())
        size = first[_axis(given, first) or 0] if first else None
        return [
            _axis(given, shape) if len(shape) > given and shape[given] == size else None
            for shape, _ in self._leaves
        ]

    def _batch(self) -> int:
        sizes = {
            shape[axis]
            for (shape, _), axis in zip(self._leaves, self.axes, strict=True)
            if axis is not None and shape[axis] is not None
        }
        if len(sizes) > 1:
            raise ShapeError(
                f"the arrays have batches of {sorted(sizes)}; expected one size. Say where the "
                "batch is: batch_axis=(0, None, ...), one an array."
            )
        return int(sizes.pop()) if sizes else _USUAL


def _of_shape(given: Any) -> Any:
    """A shape as an array without numbers."""
    is_shape = isinstance(given, tuple) and all(n is None or isinstance(n, int) for n in given)
    return _Shape(given) if is_shape and given else given


class _Shape:
    """Stands for an array of float32."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int | None, ...]) -> None:
        self.shape = shape


def _leaf(given: Any) -> tuple[tuple[Any, ...], Any]:
    if not hasattr(given, "dtype") and isinstance(given, (list, int, float)):
        given = np.asarray(given, np.float32 if isinstance(given, float) else None)
    if not hasattr(given, "dtype") or not hasattr(given, "shape"):
        raise ArgumentError(
            f"got {shown(given)} as an input: expected an array, or a shape such as (None, 784)."
        )
    return tuple(given.shape), checked_dtype(given.dtype)


def _axis(given: Any, shape: tuple[Any, ...]) -> int | None:
    if given is None:
        return None
    if not isinstance(given, int) or not -len(shape) <= given < len(shape):
        raise ShapeError(f"batch_axis {shown(given)} is no axis of an array of shape {shape}.")
    return given % len(shape)


def _named(
    kind: str, given: Sequence[str] | None, count: int, what: str, hints: Sequence[str] = ()
) -> list[str]:
    if given is None:
        return list(hints) or [kind if count == 1 else f"{kind}_{i}" for i in range(count)]
    names = list(given)
    if len(names) != count or len(set(names)) != count or "" in names:
        raise ArgumentError(f"{kind}_names is {shown(given)}, but {count} {what}: a name for each.")
    return names


def _paths(structure: Any) -> list[str]:
    """`output`, `output_0`, or keys of dicts."""
    leaves, _ = tree.flatten(tree.unflatten(structure, list(range(_count(structure)))))
    found = _walk(structure, "")
    return found if len(leaves) == len(found) else [f"output_{i}" for i in leaves]


def _count(structure: Any) -> int:
    return len(_walk(structure, ""))


def _walk(part: Any, path: str) -> list[str]:
    if part is tree.LEAF:
        return [path or "output"]
    if isinstance(part, dict):
        return [p for k, v in part.items() for p in _walk(v, f"{path}_{k}" if path else str(k))]
    if isinstance(part, (tuple, list)):
        return [p for i, v in enumerate(part) for p in _walk(v, f"{path or 'output'}_{i}")]
    return []
