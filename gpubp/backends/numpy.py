"""The NumPy backend: the living definition of a program.

It runs each instruction's ops one by one with their references, on the very operands (buffers,
offsets, strides) that the planner chose. Slow is fine; wrong is not. With `debug_nans` it names the
op that made the first NaN or infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed, Probe
from gpubp.compiler.parts import Compute, Instruction, Operand, Part
from gpubp.compiler.program import Program
from gpubp.core import Kind, describe, evaluate
from gpubp.core.store import Bank, aligned_zeros
from gpubp.errors import NonFiniteError

Hook = Callable[[Instruction, Part, list[NDArray[Any]]], None]


class Loaded:
    """A program with memory of its own."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.memory: list[NDArray[Any] | None] = []
        for buffer in program.buffers:
            if isinstance(buffer.payload, Bank):
                self.memory.append(buffer.payload.data)
            elif buffer.kind == "const":
                self.memory.append(np.asarray(buffer.payload))
            elif buffer.kind == "arena":
                self.memory.append(aligned_zeros(buffer.size, buffer.dtype))
            else:
                self.memory.append(None)

    def bind(self, feed: Feed, outputs: Sequence[NDArray[Any]], step: int) -> None:
        """Point input and output buffers at the arrays of this step."""
        for i, buffer in enumerate(self.program.buffers):
            if isinstance(buffer.payload, Bank):
                buffer.payload.sync_host()
            elif buffer.kind == "input":
                self.memory[i] = feed.inputs[buffer.position].reshape(-1)
            elif buffer.kind == "output":
                self.memory[i] = outputs[buffer.position][step : step + 1].reshape(-1)

    def release(self) -> None:
        """Let go of the arrays of a run."""
        for i, buffer in enumerate(self.program.buffers):
            if buffer.kind in ("input", "output"):
                self.memory[i] = None

    def view(self, operand: Operand) -> NDArray[Any]:
        """The operand as a strided view of its buffer."""
        memory = self.memory[operand.buffer]
        assert memory is not None
        flat = memory if memory.dtype == operand.dtype else memory.view(operand.dtype)
        size = operand.dtype.itemsize
        strides = tuple(s * size for s in operand.strides)
        return as_strided(flat[operand.offset :], operand.shape, strides)


class NumpyBackend(Backend):
    """Interprets programs op by op.

    Args:
        debug_nans: raise NonFiniteError at the first op that turns finite inputs into NaN or
            infinity.
        hook: called after each part with its instruction, the part, and its results.
    """

    name = "numpy"

    def __init__(self, debug_nans: bool = False, hook: Hook | None = None) -> None:
        self.debug_nans = debug_nans
        self.hook = hook

    @classmethod
    def probe(cls) -> Probe:
        reason = "always there; slow: for checking and debugging"
        return Probe(cls.name, True, reason, {"numpy": np.__version__})

    def load(self, program: Program) -> Loaded:
        return Loaded(program)

    def run(self, loaded: Sequence[Loaded], schedule: NDArray[np.int64], feed: Feed) -> None:
        if feed.check is not None:
            feed.check()
        try:
            for step, (which, position) in enumerate(schedule.tolist()):
                target = loaded[which]
                target.bind(feed, feed.outputs[which], step)
                for instruction in target.program.instructions:
                    for part in instruction.parts:
                        self._run_part(target, instruction, part, feed, position)
                if feed.look is not None:
                    feed.look(step + 1)
        finally:
            for target in loaded:
                target.release()

    def _run_part(
        self, loaded: Loaded, instruction: Instruction, part: Part, feed: Feed, position: int
    ) -> None:
        values = [loaded.view(o) for o in part.inputs]
        for compute in part.body:
            if compute.spec.name == "load_batch":
                rows = feed.order[position : position + compute.shape[0]]
                values.append(feed.inputs[compute.attrs["input"]][rows])
                continue
            args = [values[a] for a in compute.args]
            result = self._evaluate(instruction, compute, args)
            values.append(result)
        # Copied first: an output may share memory with an input of the same part.
        results = [np.array(values[v]) for v, _ in part.outputs]
        for (_, operand), result in zip(part.outputs, results):
            loaded.view(operand)[...] = result
        if self.hook is not None:
            self.hook(instruction, part, results)

    def _evaluate(
        self, instruction: Instruction, compute: Compute, args: list[NDArray[Any]]
    ) -> NDArray[Any]:
        with np.errstate(all="ignore"):
            result = evaluate(compute.spec, args, compute.attrs)
        looks = self.debug_nans and compute.spec.kind is not Kind.LOOP
        broken = looks and not np.all(np.isfinite(result))
        if broken and all(np.all(np.isfinite(a)) for a in args):
            given = ", ".join(describe(a) for a in args)
            raise NonFiniteError(
                f"{compute.spec.name}({given}) in instruction {instruction.name!r} made "
                "a NaN or infinity from finite inputs."
            )
        return result
