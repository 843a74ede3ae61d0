"""Arguments without an axis of samples: marked so, they are given once and read by every step."""

from __future__ import annotations

from typing import Any

from gpubp.core import tree


class Whole:
    """An array that every step reads as it is; made by `gp.whole`.

    Attributes:
        value: the array, or number.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"whole({self.value!r})"


def whole(value: Any) -> Any:
    """Mark an argument of a step, of `Trainer` or of its `predict` as one without samples.

    Every step of a run reads all of it, where others get the rows of their batch: a table, the
    edges of a graph, a number that changes from run to run.

    Args:
        value: an array or a number; of tuples and dicts, each array inside is marked.

    Returns:
        What to pass in its place.
    """
    if tree.is_nested(value):
        leaves, structure = tree.flatten(value)
        return tree.unflatten(structure, [whole(leaf) for leaf in leaves])
    return value if isinstance(value, Whole) else Whole(value)
