"""Measures contenders in turn: checks that they compute the same, then round after round.

A round asks every contender once, so that whatever the machine does meanwhile (clock rates, other
programs) meets all of them alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.children import Child, LeftOutError
from gpubp.cli.bench import BenchmarkError

# Threads of the turn before may spin after their work: those of NumPy's OpenBLAS for 0.12 s.
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Contender:
    """Who takes part.

    Attributes:
        name: in tables ("torch-fused").
        peer: its child process ("torch").
        module: with `build(variant, task)` and `versions()`.
        compared: its results must equal the first contender's.
        required: a failure ends the benchmark; others are left out and reported.
    """

    name: str
    peer: str
    module: str
    compared: bool = True
    required: bool = False


@dataclass(frozen=True)
class Spread:
    """Seconds for each unit over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        return cls(statistics.median(seconds), min(seconds), max(seconds))


@dataclass
class Outcome:
    """Of one contest: by contender's name, in the order in which they were given."""

    rounds: dict[str, list[float]] = field(default_factory=dict)  # seconds
    device: dict[str, Spread] = field(default_factory=dict)  # by the GPU's clock
    differences: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def spreads(self) -> dict[str, Spread]:
        return {name: Spread.of(seconds) for name, seconds in self.rounds.items()}


class Arena:
    """The child processes of one number of threads; a context manager.

    Args:
        contenders: the first is the reference that the others are compared with.
        threads: for each child; None: as many as there are processors.
        gpu: the networks run on the GPU, and its own clock is asked, too.
    """

    def __init__(
        self, contenders: Sequence[Contender], threads: int | None, gpu: bool = False
    ) -> None:
        self._contenders = contenders
        self.threads = threads
        self._gpu = gpu
        self._children: dict[str, Child] = {}
        self._stack = ExitStack()
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}

    def __enter__(self) -> Arena:
        try:
            for contender in self._contenders:
                self._start(contender)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def _start(self, contender: Contender) -> None:
        if contender.peer in self._children or contender.peer in self.absent:
            return
        child = self._stack.enter_context(Child(contender.peer, self.threads, self._gpu))
        try:
            self.versions |= child.ask("versions", contender.module)
        except LeftOutError as reason:
            if contender.required:
                raise BenchmarkError(f"{contender.peer} is {reason}.") from reason
            self.absent[contender.peer] = str(reason)
            return
        self._children[contender.peer] = child

    def hold(
        self,
        task: Any,
        repeats: int,
        tolerance: float,
        advance: Callable[[], None],
        contenders: Sequence[Contender] | None = None,
    ) -> Outcome:
        """Check, then measure `repeats` rounds.

        Args:
            task: given to every contender's `build`.
            repeats: rounds, at least 1.
            tolerance: relative, of the comparison of results.
            advance: called after each turn.
            contenders: those who take part; default all.

        Raises:
            BenchmarkError: results differ, or a required contender failed.
        """
        outcome = Outcome()
        contenders = self._contenders if contenders is None else contenders
        ready = self._prepare(contenders, task, tolerance, outcome)
        seconds: dict[str, list[float]] = {c.name: [] for c in ready}
        device: dict[str, list[float | None]] = {c.name: [] for c in ready}
        for _ in range(repeats):
            for contender in ready:
                time.sleep(PAUSE_SECONDS)
                child = self._children[contender.peer]
                seconds[contender.name].append(child.ask("turn", contender.name))
                if self._gpu:
                    device[contender.name].append(child.ask("device", contender.name))
                advance()
        for child in self._children.values():
            child.ask("clear")
        outcome.rounds = seconds
        told = {name: [v for v in values if v is not None] for name, values in device.items()}
        outcome.device = {name: Spread.of(values) for name, values in told.items() if values}
        return outcome

    def _prepare(
        self, contenders: Sequence[Contender], task: Any, tolerance: float, outcome: Outcome
    ) -> list[Contender]:
        """Build and check everyone; returns those who take part."""
        ready: list[Contender] = []
        expected: NDArray[Any] | None = None
        for contender in contenders:
            try:
                values = self._open(contender, task)
            except (LeftOutError, BenchmarkError) as reason:
                if contender.required:
                    raise
                outcome.left_out[contender.name] = str(reason)
                continue
            if contender.compared:
                expected = values if expected is None else expected
                difference = relative_difference(values, expected)
                outcome.differences[contender.name] = difference
                if not difference <= tolerance:
                    raise BenchmarkError(
                        f"{task}: the results of {contender.name} differ from those of "
                        f"{contenders[0].name} by {difference:.2g}, more than "
                        f"{tolerance:.2g}: they do not do the same work."
                    )
            ready.append(contender)
        return ready

    def _open(self, contender: Contender, task: Any) -> NDArray[Any]:
        if contender.peer in self.absent:
            raise LeftOutError(self.absent[contender.peer])
        child = self._children[contender.peer]
        child.ask("open", contender.name, contender.module, contender.name, task)
        values: NDArray[Any] = child.ask("check", contender.name)
        child.ask("warm", contender.name)
        return values


def relative_difference(values: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a share of the largest expected value; NaN if anything is NaN.

    One value alone is compared with the mean: some libraries tell only an epoch's mean loss.
    """
    if values.size == 1 and expected.size > 1:
        expected = np.mean(expected, dtype=np.float64).reshape(1)
    if values.shape != expected.shape:
        return float("inf")
    if values.size == 0:
        return 0.0
    scale = max(float(np.abs(expected).max()), np.finfo(np.float32).tiny)
    return float(np.abs(values.astype(np.float64) - expected).max()) / scale
