"""Module state: new values for slots that are not trained, such as running statistics.

Comes in: a slot (an nn.Buffer) and its new value. Outside of a trace the slot takes the value at
once. Inside one the write is noted in the graph: each run of the program ends with it.

Holds in between: what is read from the slot after an assignment is the new value, in a trace as
outside of it; a slot has one write a program.
"""

from __future__ import annotations

from typing import Any

from gpubp.core import active_graph, at_once, describe
from gpubp.core.interop import on_device
from gpubp.core.store import Slot
from gpubp.errors import ShapeError, TraceError
from gpubp.ops.spec import cast_to, promote


def assign(slot: Slot, value: Any) -> None:
    """Give module state a new value.

    Programs of `gp.compile_step` and `gp.compile` that were traced with an assignment make it at
    the end of every run.

    Args:
        slot: an nn.Buffer, or an nn.Parameter that is frozen (requires_grad=False).
        value: of the slot's shape; cast to its dtype.

    Raises:
        ShapeError: the shapes differ.
        TraceError: `slot` is not a slot, or a parameter that an optimiser may write as well.
    """
    if not isinstance(slot, Slot):
        raise TraceError(
            f"assign writes into an nn.Buffer, got {type(slot).__name__}. Register the state with "
            "self.register_buffer(name, value)."
        )
    (new,) = promote(value)
    if tuple(new.shape) != slot.shape:
        raise ShapeError(
            f"{slot.name}: got a new value {describe(new)}, expected the shape {slot.shape}."
        )
    new = cast_to(new, slot.dtype)
    graph = active_graph()
    if graph is None:
        if on_device(new):
            at_once.assign(slot, new)
        else:
            slot.value = new
        return
    if getattr(slot, "requires_grad", False):
        raise TraceError(
            f"{slot.name} is trained, so the optimizer writes it. Freeze it with "
            "requires_grad_(False), or keep the state in an nn.Buffer."
        )
    graph.assign(slot, graph.lift(new))
