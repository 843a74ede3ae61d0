"""`gp.checkpoint`: values that the backward pass makes again instead of keeping them.

Comes in: a function. Goes out: the same function, and a note on the graph of which nodes are its
(`recomputed`). After T. Chen et al., "Training deep nets with sublinear memory cost" (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from gpubp.arguments import checked
from gpubp.compiler.grad import alias
from gpubp.compiler.recomputed import Region
from gpubp.core import Array, active_graph, tree


@checked
def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; gradients recompute what is inside instead of keeping it in memory.

    As `jax.checkpoint`. Only the arguments, what the function uses from around it and its random
    numbers are kept for the backward pass. The values and gradients are the same.

    Args:
        fn: traceable, also a module; takes and returns arrays or nested tuples, lists and dicts.
    """

    @wraps(fn, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        graph = active_graph()
        if graph is None:
            return fn(*args, **kwargs)
        leaves, structure = tree.flatten([list(args), kwargs])
        start = len(graph.nodes)
        own = [alias(graph, x) if hasattr(x, "dtype") else x for x in leaves]
        place = len(graph.recomputed)  # outer ones stand before inner ones
        given, named = tree.unflatten(structure, own)
        out = fn(*given, **named)
        nodes = [x.node for x in own if isinstance(x, Array)]
        graph.recomputed.insert(place, Region(nodes, start, len(graph.nodes)))
        return out

    return call
