"""`gp.compile`: any traceable function as a compiled program."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from gpubp.arguments import checked
from gpubp.backends.base import Backend, Feed
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.pipeline import Options
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType, Graph, NumberType, active_graph, tree
from gpubp.runtime.bound_call import Singles, key_of
from gpubp.runtime.nesting import nesting, running, turn
from gpubp.runtime.outputs import Results
from gpubp.runtime.program_cache import Runner, as_input, check_indices
from gpubp.runtime.report import Report, report
from gpubp.runtime.static import NOTHING_STATIC, Static

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
        static: Static = NOTHING_STATIC,
    ) -> None:
        self._fn = fn
        self._made = backend, device, options, static
        self._static = static
        self._latest: CompiledFunction | None = None
        self._others: dict[Any, CompiledFunction] = {}
        self.__name__ = getattr(fn, "__name__", type(fn).__name__)
        self._runner = Runner(self._trace, backend, device, False, options, self.__name__)
        self._singles = Singles()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy compiles a copy of the function anew: that of a module has its own parameters, and
        that of a plain function is the same one. What was defined with `@gp.compile` goes by name.
        """
        module, name = getattr(self._fn, "__module__", ""), getattr(self._fn, "__qualname__", "")
        if _named(module, name) is self:
            return _named, (module, name)
        return CompiledFunction, (self._fn, *self._made)

    def _trace(self, types: tuple[Any, ...], structure: Any) -> tuple[Graph, Any]:
        return trace(self._fn, tree.unflatten(structure, list(types)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on concrete arrays; inside a trace, the plain function is traced along.

        Args:
            *args: arrays, or nested tuples, lists and dicts of them; static ones as they are.
            **kwargs: the same.

        Returns:
            What the function returns, with NumPy arrays; with arrays on the device if one of the
            arguments is there.
        """
        if active_graph() is not None:
            return self._fn(*args, **kwargs)
        if kwargs or self._static.any:
            other, given = self._other(args, kwargs)
            return other(*given)
        key = key_of(args)
        with turn(self._runner) if nesting.possible else self._runner.lock:
            single = self._singles.find(key)
            if single is None:
                return self._run(args, key)
            self._runner.last = single.ready
            if nesting.possible:
                with running(self._runner, [single.ready.graph]):
                    outputs = single(args)
            else:
                outputs = single(args)
            return tree.unflatten(single.ready.structure, [o[0].copy() for o in outputs])

    def _other(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[CompiledFunction, tuple[Any, ...]]:
        """The function of arrays alone for these static values, and its arguments."""
        split = self._static.split(self.__name__, args, kwargs)
        other = self._others.get(split.key)
        if other is None:
            fixed = split.applied(self._fn)
            other = self._others[split.key] = CompiledFunction(fixed, *self._made[:3])
            other.__name__ = self.__name__
        self._latest = other
        return other, split.arrays

    def on_device(self, *args: Any, **kwargs: Any) -> Any:
        """Run, with results on the device even if no argument is there."""
        if kwargs or self._static.any:
            other, given = self._other(args, kwargs)
            return other.on_device(*given)
        with turn(self._runner):
            return self._run(args, None, True)

    def _run(self, args: tuple[Any, ...], key: tuple[Any, ...] | None, device: bool = False) -> Any:
        arrays, types, structure = self._inputs(args)
        backend = self._runner.backend
        ready = self._runner.get(types, structure)
        program = ready.program
        device = device or any(isinstance(a, DeviceArray) for a in arrays)
        found = [Results(backend, 1, *kind, device, single=True) for kind in program.output_types]
        outputs = [result.rows(0, 1) for result in found]
        feed = Feed(arrays, _NO_ORDER, [outputs], lambda: check_indices(program, arrays))
        with running(self._runner, [ready.graph]):
            backend.run([ready.loaded], _ONE_STEP, feed)
        self._singles.add(key, ready, backend, arrays)
        return tree.unflatten(ready.structure, [result.value for result in found])

    def _inputs(self, args: tuple[Any, ...]) -> tuple[list[Any], tuple[Any, ...], Any]:
        """The arrays among the arguments, their types, and the arguments' structure."""
        leaves, structure = tree.flatten(list(args))
        backend = self._runner.backend
        arrays = [as_input(x, f"argument {i}", None, backend) for i, x in enumerate(leaves)]
        types = tuple(
            NumberType() if type(x) is float else ArrayType(a.shape, a.dtype)
            for a, x in zip(arrays, leaves)
        )
        return arrays, types, structure

    def explain(self, *args: Any, after: str = "memory_plan", **kwargs: Any) -> str:
        """What one pass of the compiler makes of the function for arguments like these, as text;
        see `Step.explain` for the passes.

        Raises:
            UnknownNameError: no such pass.
        """
        if kwargs or self._static.any:
            other, given = self._other(args, kwargs)
            return other.explain(*given, after=after)
        with turn(self._runner):
            _, types, structure = self._inputs(args)
            return self._runner.explain(types, structure, after)

    def report(self, profile: bool = False) -> Report:
        """Instructions, fusion, arithmetic and bytes of the last program used.

        Args:
            profile: also run each part alone, on zeros, and show its time beside its roofline
                bound; slots stay as they are. For backends that can.
        """
        latest = self._latest
        return report(self._runner, profile) if latest is None else latest.report(profile)


def _named(module: str, name: str) -> Any:
    """What a module calls by this dotted name; None if there is nothing."""
    found: Any = sys.modules.get(module) or (import_module(module) if module else None)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


@checked
def compile_function(
    fn: Callable[..., Any],
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    options: Options | None = None,
    static_argnums: int | tuple[int, ...] = (),
    static_argnames: str | tuple[str, ...] = (),
) -> CompiledFunction:
    """Compile a traceable function of arrays (exported as `gp.compile`).

    Args:
        fn: takes and returns arrays or nested structures of them; an nn module works too.
        backend: "numba", "numpy" or an instance; default from GPUBP_BACKEND, else the best.
        device: "cpu", "cuda", "cuda:N" or "cuda-emulated" (see docs/gpu.md); default from
            GPUBP_DEVICE, else the CPU.
        options: for tests: switch fusion or memory reuse off.
        static_argnums: positions of arguments that are no arrays but values that the trace may
            look at (numbers that decide, names, functions): there is a program for each value.
        static_argnames: the same for names of arguments. An argument that is static by its position
            is so by its name too, and the other way round, where the function has a signature.

    Returns:
        A function of the same arguments, positional and by name.

    Raises:
        ArgumentError: positions or names that the function does not have; at a call: a static value
            that is not hashable.
    """
    return CompiledFunction(
        fn, backend, device, options, Static.of(fn, static_argnums, static_argnames)
    )
