"""Arrays that an op makes from its static attributes: indices, masks, weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.core import Array, active_graph
from gpubp.ops.spec import beside


def constant(value: Any, like: Any) -> Any:
    """A NumPy array made here, where `like` is: in the graph, on its device, or as it is.

    Nobody else holds it, so it is no fact that a trace has to watch.
    """
    graph = active_graph()
    found = np.ascontiguousarray(value)
    return beside(found, like) if graph is None else Array(graph, graph.constant(found))
