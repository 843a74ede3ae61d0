"""Products whose workers share columns instead of rows, where that leaves more to each alone.

That is so where B is a weight that nothing else reads: the worker that updates rows of it, as it is
stored, reads no others. And where the result of such a product is read again, for the gradient
before the activation, which is what the update of these weights reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from gpubp.compiler.group import Group
from gpubp.compiler.parts import FINE, PRODUCT, Operand, Part
from gpubp.compiler.places import Places
from gpubp.compiler.views import Layout
from gpubp.core import SLOT, Graph, Kind, Node


class Columns:
    """Decides, part by part in the order of their groups, which are shared by columns.

    Args:
        graph, layouts: from `canonicalize`.
        places: of the values.
        splits: see `Backend.splits_columns`.
    """

    def __init__(
        self,
        graph: Graph,
        layouts: Mapping[int, Layout],
        places: Places,
        splits: Callable[[Part, str], bool],
    ) -> None:
        self._layouts, self._places, self._splits = layouts, places, splits
        self._split: set[int] = set()  # values that workers share by columns
        self._updated = {slot for slot, _ in graph.writes}
        self._products: dict[int, list[int]] = {}  # of a node: the products that read it
        for node in graph.nodes:
            if node.spec.kind is Kind.MATMUL:
                for index in {layouts[s.index].base.index for s in node.inputs}:
                    self._products.setdefault(index, []).append(node.index)

    def share(self, group: Group, part: Part) -> Part | None:
        """The same product shared by columns; None: by rows, or it is no product."""
        anchor = group.anchor
        if part.kernel != PRODUCT or anchor is None or len(anchor.shape) != 2:
            return None
        why = self._why(group, anchor, part)
        if why is None or not self._splits(part, why):
            return None
        if why != "update":
            self._split.update(n.index for n in group.nodes if n.shape == anchor.shape)
        return _by_columns(part, anchor.shape[1])

    def refine(self, parts: list[Part]) -> None:
        """Finer shares of rows, but where as many columns are shared: workers would meet in a cache
        line of every row (updates of few rows are exempt). Parts of equally many rows share alike.
        """
        columns = {part.rows for part in parts if part.outputs[0][1].value in self._split}
        for part in parts:
            if part.rows not in columns:
                part.grain = FINE

    def _why(self, group: Group, anchor: Node, part: Part) -> str | None:
        """See `Backend.splits_columns`."""
        if self._split:
            beside = [s for n in group.nodes for s in n.inputs if n is not anchor]
            bases = {self._layouts[s.index].base.index for s in beside if s.shape == anchor.shape}
            if bases & self._split:
                return "follows"
        if self._is_own_weight(anchor):
            return "weight"
        written = all(self._places.kind(o) == "bank" for _, o in part.outputs)
        return "update" if written and part.outputs else None

    def _is_own_weight(self, product: Node) -> bool:
        """B is the transpose of a slot that is updated and that no other product reads."""
        weight = self._layouts[product.inputs[1].index]
        if weight.base.spec is not SLOT or weight.base.payload not in self._updated:
            return False
        alone = self._products[weight.base.index] == [product.index]
        return alone and weight.strides == (1, weight.shape[0])


def _by_columns(part: Part, columns: int) -> Part:
    """A product of two matrices whose workers share columns instead of rows."""
    assert part.anchor is not None
    left = part.body[part.anchor].args[0]
    inputs = [
        o._replace(axis=_last_axis(o, columns) if i != left else None)
        for i, o in enumerate(part.inputs)
    ]
    outputs = [(v, o._replace(axis=1)) for v, o in part.outputs]
    return replace(part, inputs=inputs, outputs=outputs, rows=columns)


def _last_axis(operand: Operand, columns: int) -> int | None:
    """The last axis, if it has the columns' number."""
    if not operand.shape or operand.shape[-1] != columns or operand.strides[-1] == 0:
        return None
    return len(operand.shape) - 1
