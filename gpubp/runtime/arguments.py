"""The arguments of a step, taken apart: resident arrays, arrays that are read whole, their names.

Comes in: arrays, tuples and dicts of arrays, and what `gp.whole` marks. Goes out: one list of
arrays, as a program's inputs, and the structure that puts traced ones together again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpubp.arguments import shown
from gpubp.backends.base import Backend
from gpubp.core import ArrayType, Whole, WholeType, checked_dtype, describe, tree
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.runtime.program_cache import as_input

Types = tuple[ArrayType | WholeType, ...]


@dataclass(frozen=True)
class Arguments:
    """Arguments as a list of arrays.

    Attributes:
        arrays: in order; every one of `given`'s.
        whole: for each, whether it has no axis of samples.
        structure: of the arguments, for `tree.unflatten`; None if each is an array.
        names: of the arrays, for errors.
    """

    arrays: list[Any]
    whole: tuple[bool, ...]
    structure: Any
    names: list[str]

    @classmethod
    def taken(cls, given: Sequence[Any], names: Sequence[str] | None = None) -> Arguments:
        """Take arguments apart; nothing is looked at or converted.

        Tuples and dicts are taken apart, at any depth; lists, and tuples of nothing but numbers,
        are arrays.

        Args:
            given: the arguments.
            names: theirs; default "argument 0" and so on.
        """
        found: list[tuple[str, Any]] = []
        names = names or [f"argument {i}" for i in range(len(given))]
        structure: Any = [_take(v, n, found) for v, n in zip(given, names)]
        if all(part is tree.LEAF for part in structure):
            structure = None
        whole = tuple(isinstance(v, Whole) for _, v in found)
        arrays = [v.value if isinstance(v, Whole) else v for _, v in found]
        return cls(arrays, whole, structure, [n for n, _ in found])

    @property
    def first(self) -> int:
        """The position of the first array with samples.

        Raises:
            DataError: there is none.
        """
        if all(self.whole):
            raise DataError(
                "no data: pass the arrays that the step's function takes, with samples along the "
                "first axis" + (" (gp.whole marks those that have none)." if self.whole else ".")
            )
        return self.whole.index(False)

    @property
    def samples(self) -> int:
        """How many there are, by the first array that has some."""
        return len(self.arrays[self.first])

    def converted(self, convert: Callable[[Any, str], Any]) -> Arguments:
        """The same of other arrays: what `convert` makes of each and its name."""
        arrays = [convert(a, n) for a, n in zip(self.arrays, self.names)]
        return replace(self, arrays=arrays)

    def rows(self, index: Any) -> Arguments:
        """Some of the samples, by a slice or indices; whole arrays stay."""
        arrays = [a if w else a[index] for a, w in zip(self.arrays, self.whole)]
        return replace(self, arrays=arrays)

    def types(self, size: int) -> Types:
        """Of a batch of so many samples."""
        return tuple(
            WholeType(a.shape, a.dtype) if whole else ArrayType((size, *a.shape[1:]), a.dtype)
            for a, whole in zip(self.arrays, self.whole)
        )

    def like(self, size: int) -> list[Any]:
        """The arguments of a batch of so many samples, with types in the place of arrays."""
        return replace(self, arrays=list(self.types(size))).given()

    def beside(self, array: Any, name: str) -> Arguments:
        """The same, and one more array with samples as the last argument."""
        structure = None if self.structure is None else [*self.structure, tree.LEAF]
        whole, names = (*self.whole, False), [*self.names, name]
        return Arguments([*self.arrays, array], whole, structure, names)

    def given(self) -> list[Any]:
        """The arguments again, with whole arrays marked."""
        leaves = [Whole(a) if w else a for a, w in zip(self.arrays, self.whole)]
        return leaves if self.structure is None else list(tree.unflatten(self.structure, leaves))

    def parts(self) -> list[Any]:
        """The arguments again, with arrays, as a function takes them."""
        return built(self.structure, self.arrays)

    @property
    def key(self) -> tuple[Any, ...] | None:
        """What equal calls have in common; None unless all is NumPy's."""
        found: list[Any] = []
        for array in self.arrays:
            if type(array) is not np.ndarray:
                return None
            found += (array.shape, array.dtype)
        return (*found, self.whole, repr(self.structure))


def built(structure: Any, leaves: Sequence[Any]) -> list[Any]:
    """What a function is called with."""
    return list(leaves) if structure is None else list(tree.unflatten(structure, list(leaves)))


def _take(value: Any, name: str, found: list[tuple[str, Any]]) -> Any:
    if not tree.is_nested(value):
        _check_list(value, name)
        found.append((name, value))
        return tree.LEAF
    if isinstance(value, dict):
        return {k: _inside(v, f"{name}[{k!r}]", found) for k, v in value.items()}
    parts = [_inside(v, f"{name}[{i}]", found) for i, v in enumerate(value)]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


def _check_list(value: Any, name: str) -> None:
    """Raise ArgumentError for a list of arrays of different shapes."""
    if not isinstance(value, list) or not value or not hasattr(value[0], "shape"):
        return
    shapes = [tuple(v.shape) if hasattr(v, "shape") else None for v in value]
    if any(shape != shapes[0] for shape in shapes):
        raise ArgumentError(
            f"{name} is a list of arrays of different shapes, {shapes[0]} first, and a list is one "
            "array here. Pass several inputs as a tuple, or as a dict by name."
        )


def _inside(value: Any, name: str, found: list[tuple[str, Any]]) -> Any:
    return None if value is None else _take(value, name, found)


def checked_arguments(
    given: Sequence[Any],
    floating: np.dtype[Any],
    backend: Backend,
    names: Sequence[str] | None = None,
) -> Arguments:
    """The arguments of a run, as `backend` reads them.

    Args:
        given: arrays, and tuples and dicts of them.
        floating: what floats are converted to.
        backend: that will run it.
        names: of the arguments, for errors.

    Raises:
        DataError: there are none with samples, or one is empty.
        ShapeError: they differ in length.
    """
    taken = Arguments.taken(given, names)
    first = taken.first
    taken = taken.converted(lambda a, name: as_input(a, name, floating, backend))
    for array, name, whole in zip(taken.arrays, taken.names, taken.whole):
        if whole:
            continue
        if array.ndim == 0 or len(array) == 0:
            raise DataError(f"{name} is empty: {describe(array)}.{_advice(array)}")
        if len(array) != taken.samples:
            raise ShapeError(
                f"{name} has {len(array)} samples, {taken.names[first]} has {taken.samples}."
                + _advice(array)
            )
    return taken


def _advice(array: Any) -> str:
    return (
        " If it has no samples, and each step is to read all of it, mark it: gp.whole(array)."
        if array.ndim == 0 or array.size
        else ""
    )


def types_of(batch: Sequence[Any]) -> tuple[Types, Any]:
    """(types, structure) of arguments that need have no contents.

    Args:
        batch: of arrays, or of anything with shape and dtype.

    Raises:
        ArgumentError: of something else.
    """
    taken = Arguments.taken(batch)
    for given, name in zip(taken.arrays, taken.names):
        if not (hasattr(given, "shape") and hasattr(given, "dtype")):
            raise ArgumentError(
                f"{name} is {shown(given)}, expected an array, or anything with shape and dtype."
            )
    types = tuple(
        (WholeType if whole else ArrayType)(tuple(a.shape), checked_dtype(a.dtype))
        for a, whole in zip(taken.arrays, taken.whole)
    )
    return types, taken.structure
