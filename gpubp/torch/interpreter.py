"""Runs a graph of ATen operations with gpubp's: inside of a trace, this translates it.

Comes in: torch's exported program, cells for its parameters and buffers, arrays for its inputs.
Goes out: what the program returns, as arrays.

Holds in between: every result has the shape and dtype that torch says it has. What is computed
under `torch.no_grad()` passes no gradient on.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from gpubp import ops
from gpubp.core.store import Slot
from gpubp.errors import GpubpError, TraceError
from gpubp.torch import where
from gpubp.torch.cells import Cell, Detached, Fresh, View, detached, held, root
from gpubp.torch.dtypes import numpy_dtype
from gpubp.torch.rules import Rule, find
from gpubp.torch.tables import RULES

# Where a tensor lies and how: nothing that its numbers depend on.
_PLACES = frozenset(
    ("device", "layout", "pin_memory", "memory_format", "non_blocking", "generator")
)
_CHECKS = frozenset(("_assert_tensor_metadata", "_assert_scalar", "_assert_async"))


class Interpreter:
    """Runs one graph.

    Args:
        module: torch's graph module.
        grad: False under `torch.no_grad()`.
    """

    def __init__(self, module: Any, grad: bool = True) -> None:
        self._module, self._grad = module, grad
        self._values: dict[Any, Any] = {}
        self._given_cells: set[int] = set()

    def run(self, inputs: Sequence[Any]) -> Any:
        """What the graph returns, in its own tuples; cells where it returns tensors.

        Args:
            inputs: one for each placeholder: a cell, or a number or None.

        Raises:
            TraceError: an operation has no rule, or an option that gpubp has not; names the line.
        """
        self._given_cells = {id(root(cell)) for cell in inputs if isinstance(cell, Cell)}
        remaining = iter(inputs)
        for node in self._module.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = next(remaining)
            elif node.op == "get_attr":
                self._values[node] = self._attribute(node.target)
            elif node.op == "call_function":
                self._values[node] = self._located(node)
            elif node.op == "output":
                return self._given(node.args[0])
        raise TraceError("the graph has no output.")

    def _attribute(self, target: str) -> Any:
        found = self._module
        for part in target.split("."):
            found = getattr(found, part)
        return Fresh(found.detach().numpy().copy()) if isinstance(found, torch.Tensor) else found

    def _located(self, node: Any) -> Any:
        try:
            return self._call(node)
        except Exception as err:
            if getattr(err, "located", False):
                raise
            what = (
                err if isinstance(err, GpubpError) else f"{node.target} is not supported so: {err}"
            )
            told = TraceError(f"{where.of_node(node)}: {what}")
            told.located = True  # type: ignore[attr-defined]
            raise told from err

    def _call(self, node: Any) -> Any:
        target = node.target
        if target is operator.getitem:
            whole, index = self._given(node.args[0]), node.args[1]
            return whole[index]
        name = str(target)
        if "wrap_with_set_grad_enabled" in name:
            return self._nested(node)
        name = name.removeprefix("aten.").removeprefix("gpubp.")
        if name.partition(".")[0] in _CHECKS:
            return None
        found = find(name)
        if found is None or not isinstance(target, torch._ops.OpOverload):
            raise TraceError(
                f"torch's {name.partition('.')[0]} has no counterpart here "
                "(gpubp.torch.supported() lists what has). Compute it outside of the step, or "
                "write it with other operations."
            )
        rule, inplace = found
        args = self._given(node.args)
        options = {k: self._given(v) for k, v in node.kwargs.items() if k not in _PLACES}
        out = options.pop("out", None)
        if isinstance(out, Cell):
            return self._written(rule, out, args, options)
        if rule.on_cells:
            return self._made(rule.compute(*args, **options), node)
        if inplace:
            return self._written(rule, args[0], args, options)
        if rule.view and isinstance(args[0], Cell):
            return self._viewed(rule, args, options, node)
        return self._made(rule.compute(*_read(args), **_read(options)), node)

    def _nested(self, node: Any) -> Any:
        """What is computed with gradients on or off."""
        enabled, body, *inputs = self._given(node.args)
        return Interpreter(body, bool(enabled)).run(inputs)

    def _written(
        self, rule: Rule, cell: Cell, args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        """A result that takes the place of what is in a cell."""
        if not self._grad and id(root(cell)) in self._given_cells and not held(cell):
            raise TraceError(
                "a result from outside of torch.no_grad() is written in place inside of it: its "
                "gradient would be that of what was there before. Compute a new tensor instead."
            )
        old = cell.read()
        new = rule.compute(*_read(args), **_read(options))
        new = new if getattr(new, "dtype", None) == old.dtype else ops.astype(new, old.dtype)
        if tuple(new.shape) != tuple(old.shape):
            new = ops.broadcast_to(new, tuple(old.shape))
        cell.write(new if self._grad else ops.stop_gradient(new))
        return cell

    def _made(self, result: Any, node: Any) -> Any:
        return _made(result, node, self._grad)

    def _viewed(
        self, rule: Rule, args: Sequence[Any], options: Mapping[str, Any], node: Any
    ) -> Any:
        """A view of the first argument, or several; a result of its own where torch copies."""
        base, rest = args[0], _read(args[1:])
        if rule is RULES["detach"]:
            return Detached(base)
        compute = partial(_after, rule, rest, options, self._grad)
        expected = node.meta.get("val")
        if isinstance(expected, torch.Tensor):
            if not _shares(node.args[0], expected):
                return self._made(compute(base.read()), node)
            return View(base, compute)
        count = len(compute(base.read()))
        return tuple(View(base, partial(_part, compute, i)) for i in range(count))

    def _given(self, arg: Any) -> Any:
        """An argument with values in the place of nodes."""
        if isinstance(arg, torch.fx.Node):
            return self._values[arg]
        if isinstance(arg, (list, tuple)):
            return (
                [self._given(a) for a in arg]
                if isinstance(arg, list)
                else tuple(self._given(a) for a in arg)
            )
        if isinstance(arg, torch.dtype):
            return numpy_dtype(arg, "a result").name
        return arg


def _read(value: Any) -> Any:
    """Arrays in the place of cells."""
    if isinstance(value, Cell):
        return value.read()
    if isinstance(value, (list, tuple)):
        return type(value)([_read(v) for v in value])
    if isinstance(value, dict):
        return {key: _read(v) for key, v in value.items()}
    return value


def _after(rule: Rule, rest: Sequence[Any], options: Mapping[str, Any], grad: bool, x: Any) -> Any:
    found = rule.compute(x, *rest, **options)
    if grad:
        return found
    return tuple(map(detached, found)) if isinstance(found, tuple) else detached(found)


def _part(compute: Any, i: int, x: Any) -> Any:
    return compute(x)[i]


def _shares(source: Any, made: Any) -> bool:
    """A result's memory is its argument's (torch says so of the tensors that it traced with)."""
    given = source.meta.get("val") if isinstance(source, torch.fx.Node) else None
    if not isinstance(given, torch.Tensor):
        return False
    mine, its = (t.untyped_storage()._cdata for t in (made, given))
    return bool(mine == its)


def _made(result: Any, node: Any, grad: bool = True) -> Any:
    """Cells for what a rule computed, held to what torch says of it."""
    expected = node.meta.get("val")
    if isinstance(result, (tuple, list)):
        several = expected if isinstance(expected, (tuple, list)) else [None] * len(result)
        return tuple(_one(r, e, grad) for r, e in zip(result, several, strict=False))
    return _one(result, expected, grad)


def _one(result: Any, expected: Any, grad: bool) -> Any:
    if result is None or isinstance(result, Cell):
        return result
    if isinstance(expected, torch.Tensor):
        dtype = numpy_dtype(expected.dtype, "a result")
        result = np.asarray(result, dtype) if not hasattr(result, "dtype") else result
        if result.dtype != dtype:
            result = ops.astype(result, dtype)
        shape = tuple(result.shape)
        if shape != tuple(expected.shape):
            raise TraceError(
                f"a result has shape {shape} here and {tuple(expected.shape)} in torch: this is a "
                "fault of gpubp.torch; please report it."
            )
    if isinstance(result, Slot):  # what stands in it now, whatever is written later
        result = ops.copy(result)
    return Fresh(result if grad else ops.stop_gradient(result))


def leaves(result: Any) -> Iterator[Any]:
    """The arrays of what a graph returns, in order; slots as arrays."""
    for part in result:
        value = part.read() if isinstance(part, Cell) else part
        yield ops.multiply(value, 1) if isinstance(value, Slot) else value
