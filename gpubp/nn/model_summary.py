"""A table of a model's modules: output shapes, parameters, arithmetic, bytes.

Comes in: a model and the shape of its input. Goes out: a `Summary`, which prints. The model is
traced once, without numbers; its state does not change.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpubp import markup
from gpubp.arguments import checked
from gpubp.compiler.trace import trace
from gpubp.core import Array, ArrayType, Kind, Node, Shape, active_graph, checked_dtype, tree
from gpubp.errors import ShapeError, TraceError
from gpubp.nn.module import Module

_HEADER = ("module", "output shape", "parameters", "FLOPs", "bytes")


class SummaryRow(NamedTuple):
    """One module.

    Attributes:
        name: dotted; "" for the model itself.
        kind: the name of its class.
        depth: how deep in the tree.
        shapes: of its outputs, at its last call; none if it was not called.
        parameters: how many numbers it and those below it have, trained and frozen.
        flops: arithmetic of its calls, those below it included.
        bytes: that its calls read and write, with one kernel for each op; those below it included.
    """

    name: str
    kind: str
    depth: int
    shapes: tuple[Shape, ...]
    parameters: int
    flops: float
    bytes: int


class Summary(NamedTuple):
    """What `summary` found; `print` it.

    Attributes:
        rows: one for the model and for each module below it.
        parameters: numbers in all parameters.
        trained: those of them that are not frozen.
        buffers: numbers in all buffers.
        flops: arithmetic of one forward pass on the given input.
        bytes: that it reads and writes, with one kernel for each op.
    """

    rows: tuple[SummaryRow, ...]
    parameters: int
    trained: int
    buffers: int
    flops: float
    bytes: int

    def __str__(self) -> str:
        cells = [_HEADER, *[_cells(row) for row in self.rows]]
        widths = [max(len(line[i]) for line in cells) for i in range(5)]
        lines = [
            "  ".join(
                f"{text:{'<' if i < 2 else '>'}{width}}"
                for i, (text, width) in enumerate(zip(line, widths))
            )
            for line in cells
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:], rule, self._total()])

    def _total(self) -> str:
        frozen = self.parameters - self.trained
        total = f"parameters: {self.parameters:,} ({self.trained:,} trained, {frozen:,} frozen)"
        return total + (f"; state: {self.buffers:,}" if self.buffers else "")

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = []
        for row in self.rows:
            label, *numbers = _cells(row)
            depth = len(label) - len(label.lstrip())
            rows.append(["\u2003" * (depth // 2) + label.lstrip(), *numbers])
        text = markup.table(_HEADER, rows, texts=2)
        return f"<div>{text}<p>{markup.escaped(self._total())}</p></div>"


def _cells(row: SummaryRow) -> tuple[str, ...]:
    label = row.name.rpartition(".")[2]
    name = f"{label} ({row.kind})" if label else row.kind
    shapes = " ".join(str(list(shape)) for shape in row.shapes) or "not called"
    numbers = (row.parameters, row.flops, row.bytes)
    return "  " * row.depth + name, shapes, *(f"{number:,.0f}" for number in numbers)


@checked
def summary(
    model: Module,
    input_shape: Sequence[int] | Sequence[Sequence[int]],
    dtype: Any = None,
) -> Summary:
    """Trace a model and list its modules.

    Args:
        model: the model, in the mode to show.
        input_shape: of the input, the batch included: (32, 64); or one shape for each input.
        dtype: of the inputs; default is that of the first parameter. "int64" for indices.

    Returns:
        The table: `print(summary(model, (32, 64)))`.

    Raises:
        ShapeError: the model does not take this shape.
        TraceError: called inside a traced function.
    """
    if active_graph() is not None:
        raise TraceError("summary() traces the model: call it outside of traced functions.")
    calls: dict[int, _Call] = {}
    with _observed(model, calls):
        graph, _ = trace(model, [ArrayType(s, _dtype(model, dtype)) for s in _shapes(input_shape)])
    rows = tuple(
        _row(name, module, calls.get(id(module), _Call())) for name, module in model.named_modules()
    )
    every = list(model.parameters())
    return Summary(
        rows,
        sum(p.size for p in every),
        sum(p.size for p in every if p.requires_grad),
        sum(b.size for b in model.buffers()),
        *_cost(graph.nodes),
    )


@dataclass
class _Call:
    shapes: tuple[Shape, ...] = ()
    flops: float = 0.0
    bytes: int = 0


def _row(name: str, module: Module, call: _Call) -> SummaryRow:
    depth = name.count(".") + bool(name)
    size = sum(p.size for p in module.parameters())
    return SummaryRow(name, type(module).__name__, depth, call.shapes, size, call.flops, call.bytes)


def _shapes(given: Sequence[Any]) -> list[Shape]:
    if hasattr(given, "shape"):
        raise ShapeError("summary: expected the shape of an input, got an array: give array.shape.")
    several = len(given) > 0 and all(isinstance(part, Sequence) for part in given)
    shapes = [tuple(s) for s in given] if several else [tuple(given)]
    if not all(isinstance(n, (int, np.integer)) and n >= 0 for s in shapes for n in s):
        raise ShapeError(f"summary: expected a shape of whole numbers, or several, got {given!r}.")
    return shapes


def _dtype(model: Module, given: Any) -> np.dtype[Any]:
    first = next(model.parameters(), None)
    return checked_dtype(given or ("float32" if first is None else first.dtype))


@contextmanager
def _observed(model: Module, calls: dict[int, _Call]) -> Iterator[None]:
    """Note each module's calls while the model is traced: an attribute hides its `forward`."""
    hidden = [(module, module.__dict__.get("forward")) for module in model.modules()]
    for module, _ in hidden:
        module.__dict__["forward"] = _noting(module, module.forward, calls)
    try:
        yield
    finally:
        for module, own in hidden:
            del module.__dict__["forward"]
            if own is not None:
                module.__dict__["forward"] = own


def _noting(module: Module, forward: Any, calls: dict[int, _Call]) -> Any:
    @functools.wraps(forward)
    def noted(*args: Any, **kwargs: Any) -> Any:
        graph = active_graph()
        assert graph is not None
        start = len(graph.nodes)
        out = forward(*args, **kwargs)
        call = calls.setdefault(id(module), _Call())
        leaves, _ = tree.flatten(out)
        call.shapes = tuple(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Array))
        flops, moved = _cost(graph.nodes[start:])
        call.flops, call.bytes = call.flops + flops, call.bytes + moved
        return out

    return noted


def _cost(nodes: Sequence[Node]) -> tuple[float, int]:
    """Arithmetic, as programs count it, and bytes moved with one kernel for each op."""
    ops = [n for n in nodes if not n.is_leaf and n.spec.kind is not Kind.VIEW]
    flops = sum(n.spec.arithmetic(n, *n.inputs, **n.attrs) for n in ops)
    return flops, sum(n.bytes_moved for n in ops)
