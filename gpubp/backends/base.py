"""The contract between programs and backends: probe, load, run.

A backend runs *schedules*: lists of (program, first position in the index order), one row a step.
Programs of one schedule are siblings (the same step for another batch size) or partners (the two
steps of a GAN); all read and update the same banks.

Banks live in host memory for the CPU backends. A device backend keeps a copy of each bank on the
device, uploads it when the host's was written, and downloads it when it is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.device_array import DeviceArray
from gpubp.backends.kept import banks_kept
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.core.store import Bank
from gpubp.errors import BackendError, DataError

LOOK_SECONDS = 0.1  # a run does not go on for much longer without a look at what has happened

# What kernels report in a word of status.
PROBLEMS = {
    1: "a class label is out of range: labels must be 0 to (number of classes - 1).",
    2: "an index is out of range of the axis it indexes.",
}


@dataclass(frozen=True)
class Probe:
    """What was found when a backend was looked for.

    Attributes:
        name: the backend's name.
        available: it can run programs here.
        reason: why not, and what to do; or what speaks for it.
        details: versions and devices, for `gpubp info`.
        more: gives further details, which take longer to find out.
    """

    name: str
    available: bool
    reason: str
    details: dict[str, str] = field(default_factory=dict)
    more: Callable[[], dict[str, str]] = dict


@dataclass(eq=False)
class Feed:
    """The arrays of one run.

    Attributes:
        inputs: one for each program input, C-contiguous and of its dtype; for batched programs the
            whole data set, along the first axis. Or `DeviceArray`s from `Backend.import_array`.
        order: int64, indices of rows of the resident arrays; unused if not batched.
        outputs: a list for each program, of arrays (steps, *output shape), or of `DeviceArray`s
            from `Backend.empty`. Row i belongs to row i of the schedule.
        check: raises if labels or indices among the inputs are out of range (`index_limits` of the
            programs), or, with `finite`, if float inputs hold NaN or infinity. Every run does so
            before any work: by calling this, or by looking itself and calling this to say where.
        finite: NaN and infinity are refused.
        checked: these very arrays passed the checks of an earlier run and have not changed since.
        look: called between steps, about every `LOOK_SECONDS`, with how many are done; may raise.
    """

    inputs: Sequence[Any]
    order: NDArray[np.int64]
    outputs: Sequence[Sequence[Any]]
    check: Callable[[], None] | None = None
    finite: bool = False
    look: Callable[[int], None] | None = None
    checked: bool = False


class MemberRun(NamedTuple):
    """A run on memory of its own: one member of a population.

    Attributes:
        banks: what stands in the place of each bank named: of its dtype and size, 64-byte aligned.
        schedule, feed: as of `Backend.run`.
        programs: which of those given to `Backend.run_members` it runs; its schedule counts these.
    """

    banks: Mapping[Bank, NDArray[Any]]
    schedule: NDArray[np.int64]
    feed: Feed
    programs: slice = slice(None)


class Peak(NamedTuple):
    """The best rates that a backend's kernels reach, which bound the time of each part
    (Williams et al., "Roofline: an insightful visual performance model", 2009).

    Attributes:
        flops: arithmetic per second, counted as `Part.flops` counts it.
        bytes: bytes per second, counted as `Part.bytes_moved` counts them: each operand once.
    """

    flops: float
    bytes: float

    def bound(self, flops: float, moved: float) -> float:
        """Seconds that so much arithmetic on so many bytes takes at the peak."""
        return max(flops / self.flops, moved / self.bytes)


def feed_of_zeros(program: Program) -> Feed:
    """Arrays for one step, to try or measure a program."""
    inputs = [np.zeros(shape, dtype) for shape, dtype in program.input_types]
    outputs = [np.zeros((1, *shape), dtype) for shape, dtype in program.output_types]
    return Feed(inputs, np.arange(program.batch_size), [outputs])


class Backend(ABC):
    """Runs programs. Subclasses hold no state of any one model.

    Attributes:
        name: as in the registry.
        precision: what float32 matrix products are computed in.
        reads_device_arrays: inputs may be `DeviceArray`s.
        nests: a custom op inside of a run may run other programs.
        runs_loops: programs may have loops; else they come written out.
        splits_sums: workers share what they sum by samples: see `compiler/tall_sums.py`.
    """

    name: str
    precision: str = "float32"
    reads_device_arrays: bool = False
    nests: bool = True
    runs_loops: bool = True
    splits_sums: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self  # it belongs to no model, and a device has one stream

    @classmethod
    @abstractmethod
    def probe(cls) -> Probe:
        """Can it be used here? Must be quick and must not raise."""

    @classmethod
    def on_device(cls, number: int) -> Backend:
        """An instance for one of several devices of its kind.

        Raises:
            BackendError: there is no such device.
        """
        return cls()

    def splits_columns(self, part: Part, why: str) -> bool:
        """The workers should share this product of two matrices by columns, not by rows.

        Args:
            part: the product.
            why: what speaks for it. "weight": B is a weight that each worker then reads a share of,
                the one that it updates. "follows": what comes after the product reads a matrix that
                was shared by columns. "update": nothing but an update reads the result.
        """
        return False

    def wide_rows(self, part: Part) -> Sequence[Sequence[Operand]]:
        """Operands of a part, in groups, whose rows may be farther apart than they are long, so
        that each begins on a cache line. Those of a group must then be so alike.
        """
        return ()

    @abstractmethod
    def load(self, program: Program) -> Any:
        """Allocate what the program needs beside its banks and return what `run` takes."""

    def listing(self, program: Program) -> str:
        """What this backend makes of a program, as text for people; by default the program."""
        return str(program)

    def remarks(self, loaded: Any) -> Sequence[str]:
        """Lines for a report: how the backend runs a program, and why so."""
        return ()

    def check_writes(self, loaded: Any) -> None:  # noqa: B027 - not all need it
        """Prove that every part writes all that it promises, see `poison`; banks stay as they are.
        A backend whose results come from the ops' references has nothing to prove.

        Raises:
            VerificationError: one does not.
        """

    def import_array(
        self, value: Any, name: str, floating: np.dtype[Any] | None = None
    ) -> DeviceArray:
        """An array on a GPU as an input that is read where it is.

        Args:
            value: an array for which `interop.on_device` is true.
            name: for errors.
            floating: what float arrays must be.

        Raises:
            DataError: this backend reads the host's memory, or that of another GPU.
        """
        raise DataError(
            f"{name} is on a GPU, but the data are read by the CPU here. Pass device='cuda', or "
            "copy the array with .get()."
        )

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Room for a result on the device: an array, in memory of its own, of the library that
        users work with there.

        Raises:
            BackendError: this backend keeps its results in the host's memory.
        """
        raise BackendError(f"backend {self.name!r} has no device.")

    def to_user_array(self, value: Any) -> Any:
        """An array on the device as one of the kind that `empty` gives, over the same memory; a
        host array is copied there.

        Raises:
            BackendError: this backend has no device.
        """
        raise BackendError(f"backend {self.name!r} has no device.")

    def profile(self, loaded: Any, feed: Feed) -> list[float]:
        """Seconds that each part of a program takes when it runs alone; state stays as it is.

        Raises:
            BackendError: this backend cannot measure.
        """
        raise BackendError(f"backend {self.name!r} does not measure its instructions.")

    def peak(self) -> Peak:
        """What bounds the parts that `profile` measures; found once and kept.

        Raises:
            BackendError: this backend cannot measure.
        """
        raise BackendError(f"backend {self.name!r} does not measure its peak.")

    def bind(self, loaded: Any, feed: Feed) -> Callable[[Sequence[int]], None]:
        """A function that runs one step of a program on the arrays of `feed`, whose contents may
        change between calls: what is called once a step should not look for addresses again.
        It is told the positions of inputs that may be other arrays than in the call before.
        """
        one = np.zeros((1, 2), np.int64)
        return lambda moved: self.run([loaded], one, feed)

    @abstractmethod
    def run(self, loaded: Sequence[Any], schedule: NDArray[np.int64], feed: Feed) -> None:
        """Run the steps of `schedule`, an int64 array of rows (index into loaded, position)."""

    def run_members(
        self, loaded: Sequence[Any], members: Sequence[MemberRun], look: Callable[[], None]
    ) -> None:
        """Run each member's schedule, in any order; the banks themselves stay as they are.

        By default one member after the other, whose memory is copied into the banks and back.

        Args:
            loaded: the programs of all schedules.
            members: their runs.
            look: called in the calling thread now and then; if it raises, members have ended
                between two steps, each where its own `Feed.look` was told last.
        """
        with ExitStack() as kept:
            for target in loaded:
                kept.enter_context(banks_kept(target.program))
            for member in members:
                for bank, own in member.banks.items():
                    bank.data[...] = own
                try:
                    self.run(loaded[member.programs], member.schedule, heard(member.feed, look))
                finally:
                    for bank, own in member.banks.items():
                        own[...] = bank.data


def heard(feed: Feed, look: Callable[[], None]) -> Feed:
    """The same, with one more look between steps."""
    own = feed.look

    def both(done: int) -> None:
        if own is not None:
            own(done)
        look()

    return replace(feed, look=both)
