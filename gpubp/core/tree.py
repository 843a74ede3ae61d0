"""Nested tuples, lists and dicts of arrays: taken apart into leaves and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Leaf:
    """Stands for one array in a structure."""

    def __repr__(self) -> str:
        return "*"


LEAF = Leaf()


def is_nested(value: Any) -> bool:
    """A dict, or a tuple of anything but numbers: arguments inside of one. (Lists are arrays.)"""
    if isinstance(value, tuple) and not hasattr(value, "dtype"):
        return not all(isinstance(v, (int, float)) for v in value)
    return isinstance(value, dict)


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """Take a structure apart.

    Returns:
        (leaves, structure): arrays in a fixed order (dicts by insertion), and what
        `unflatten` needs.
    """
    leaves: list[Any] = []
    return leaves, _take(tree, leaves)


def _take(part: Any, leaves: list[Any]) -> Any:
    # Not a function inside of `flatten`: one that calls itself would keep the arrays alive.
    if hasattr(part, "dtype"):
        leaves.append(part)
        return LEAF
    if isinstance(part, dict):
        return {key: _take(value, leaves) for key, value in part.items()}
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*[_take(p, leaves) for p in part])
    if isinstance(part, (tuple, list)):
        return type(part)([_take(p, leaves) for p in part])
    if part is None:
        return None
    leaves.append(part)
    return LEAF


def unflatten(structure: Any, leaves: list[Any]) -> Any:
    """Put `leaves` into `structure`, in the order `flatten` took them."""
    rest = iter(leaves)
    return _build(structure, rest)


def _build(structure: Any, rest: Iterator[Any]) -> Any:
    if structure is LEAF:
        return next(rest)
    if isinstance(structure, dict):
        return {key: _build(value, rest) for key, value in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*[_build(part, rest) for part in structure])
    if isinstance(structure, (tuple, list)):
        return type(structure)([_build(part, rest) for part in structure])
    return structure
