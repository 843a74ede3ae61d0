"""A module as a function of its parameters: for `gp.grad`, `gp.vmap` and others of their kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp.arguments import checked, shown
from gpubp.compiler.grad import transform
from gpubp.core import Graph, Node, describe
from gpubp.errors import ArgumentError, DTypeError, ShapeError, UnknownNameError
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer


@checked
def functional_call(
    module: Module,
    parameters_and_buffers: Mapping[str, Any],
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """What a module returns with other parameters and buffers; as `torch.func.functional_call`.

    The module itself stays as it is. A buffer that it writes and that is given here keeps the
    given value; one that is not given is written, as by an ordinary call.

    Args:
        module: the module.
        parameters_and_buffers: arrays by the names of `state_dict()`; for those that are left out
            the module's own are used. Shared ones are given under any of their names.
        args: its positional arguments, a tuple; anything else is the only one.
        kwargs: its keyword arguments: arrays are constants there.

    Raises:
        UnknownNameError: the module has nothing of a name.
        ShapeError, DTypeError: an array is not of the slot's shape or dtype.
        ArgumentError: a shared parameter is given two values.
    """
    slots = module._slots_by_name()
    unknown = [name for name in parameters_and_buffers if name not in slots]
    if unknown:
        raise UnknownNameError(
            f"functional_call: {type(module).__name__} has no {shown(unknown[0])}; it has "
            f"{', '.join(slots) or 'no parameters or buffers'}."
        )

    def body(graph: Graph, given: list[Any]) -> Any:
        state, inputs = given
        values: dict[int, tuple[str, Buffer, Node]] = {}
        for name, value in state.items():
            slot = slots[name]
            node = _fitting(name, slot, graph.lift(value))
            other = values.get(id(slot))
            if (
                other is not None
                and parameters_and_buffers[other[0]] is not (parameters_and_buffers[name])
            ):
                raise ArgumentError(
                    f"functional_call: {name} and {other[0]} are one and the same parameter of "
                    "the module, and are given two values. Leave one out."
                )
            values[id(slot)] = (name, slot, node)
        with graph.in_place([(slot, node) for _, slot, node in values.values()]):
            return module(*inputs, **(kwargs or {}))

    positional = args if isinstance(args, tuple) else (args,)
    return transform(body)(dict(parameters_and_buffers), positional)


def _fitting(name: str, slot: Buffer, node: Node) -> Node:
    if node.shape != slot.shape:
        raise ShapeError(
            f"functional_call: {name} is {describe(node)}, expected shape {slot.shape}."
        )
    if node.dtype != slot.dtype:
        raise DTypeError(f"functional_call: {name} is {describe(node)}, expected {slot.dtype}.")
    return node
