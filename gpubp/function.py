"""`gp.compile`: any traceable function as a compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import tree
from gpubp.backends.base import Backend, Feed
from gpubp.compile import Options
from gpubp.core import ArrayType, Graph, active_graph
from gpubp.report import report
from gpubp.runner import Runner, as_input, check_indices
from gpubp.trace import trace

_ONE_STEP = np.zeros((1, 2), np.int64)
_NO_ORDER = np.zeros(0, np.int64)


class CompiledFunction:
    """A function of arrays that runs as a fused program; made by `gp.compile`.

    One program is kept for each combination of argument shapes and dtypes.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        backend: str | Backend | None = None,
        device: str | None = None,
        options: Options | None = None,
    ) -> None:
        self._fn = fn
        self._structure: Any = None
        self._runner = Runner(self._trace, backend, device, False, options)
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)

    def _trace(self, types: tuple[ArrayType, ...]) -> tuple[Graph, Any]:
        return trace(self._fn, tree.unflatten(self._structure, list(types)))

    def __call__(self, *args: Any) -> Any:
        """Run on concrete arrays; inside a trace, the plain function is traced along.

        Args:
            *args: arrays, or nested tuples, lists and dicts of them.

        Returns:
            What the function returns, with NumPy arrays.
        """
        if active_graph() is not None:
            return self._fn(*args)
        with self._runner.lock:
            return self._run(args)

    def _run(self, args: tuple[Any, ...]) -> Any:
        leaves, self._structure = tree.flatten(list(args))
        arrays = [as_input(leaf, f"argument {i}") for i, leaf in enumerate(leaves)]
        types = tuple(ArrayType(a.shape, a.dtype) for a in arrays)
        ready = self._runner.get(types, repr(self._structure))
        check_indices(ready.program, arrays)
        outputs = [np.empty((1, *shape), dtype) for shape, dtype in ready.program.output_types]
        feed = Feed(arrays, _NO_ORDER, [outputs])
        self._runner.backend.run([ready.loaded], _ONE_STEP, feed)
        return tree.unflatten(ready.structure, [o[0] for o in outputs])

    def report(self) -> str:
        """Instructions, fusion, arithmetic and bytes of the last program used."""
        return report(self._runner.last, self._runner.backend.name)


def compile_function(
    fn: Callable[..., Any],
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    options: Options | None = None,
) -> CompiledFunction:
    """Compile a traceable function of arrays (exported as `gp.compile`).

    Args:
        fn: takes and returns arrays or nested structures of them; an nn module works too.
        backend: "numba", "numpy" or an instance; default from GPUBP_BACKEND, else the best.
        device: "cpu"; default from GPUBP_DEVICE.
        options: for tests: switch fusion or memory reuse off.

    Returns:
        A function of the same arguments.
    """
    return CompiledFunction(fn, backend, device, options)
