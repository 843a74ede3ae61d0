"""What CUDA does while streams are captured, for the made-up libraries; and graphs whose kernels
run in any order that their edges allow.

After the CUDA C++ Programming Guide, "Creating a Graph Using Stream Capture", "Cross-stream
Dependencies and Events": an event keeps what its stream's next kernel would be behind; a stream
that waits for it is captured, too; all must have been waited for by the first stream in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from gpubp.backends.cuda.emulator.graphs import shuffled

Work = Callable[[], Any]


class CaptureError(RuntimeError):
    """As cudaErrorStreamCaptureUnjoined, or ...Isolation."""


class Recording:
    """Kernels, and which of them each is behind.

    Attributes:
        work: what each does.
        before: numbers of earlier ones.
    """

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.before: list[frozenset[int]] = []
        self.streams: list[Captured] = []

    @property
    def depth(self) -> int:
        """Kernels on the longest way."""
        found: list[int] = []
        for before in self.before:
            found.append(1 + max((found[j] for j in before), default=0))
        return max(found, default=0)

    @property
    def edges(self) -> int:
        return sum(map(len, self.before))

    def run(self, order: Random) -> None:
        """Once, in an order that is drawn."""
        for i in shuffled(self.before, order):
            self.work[i]()


class Captured:
    """A stream, as far as captures go.

    Attributes:
        recording: that it is captured in; None.
        ends: what its next kernel is behind.
    """

    def __init__(self) -> None:
        self.recording: Recording | None = None
        self.ends: set[int] = set()

    def begin(self) -> None:
        self.recording, self.ends = Recording(), set()
        self.recording.streams.append(self)

    def end(self) -> Recording:
        """Raises CaptureError: a stream that was captured, too, has not been waited for."""
        found = self.recording
        assert found is not None and found.streams[0] is self
        known = set(self.ends)
        for i in sorted(range(len(found.work)), reverse=True):
            if i in known:
                known |= found.before[i]
        apart = [s for s in found.streams if s.recording is found and not s.ends <= known]
        for stream in found.streams:
            stream.recording, stream.ends = None, set()
        if apart:
            raise CaptureError("capture unjoined")
        return found

    def do(self, work: Work) -> None:
        """Now, or as a part of the recording."""
        if self.recording is None:
            work()
            return
        self.recording.work.append(work)
        self.recording.before.append(frozenset(self.ends))
        self.ends = {len(self.recording.work) - 1}

    def mark(self) -> tuple[Recording | None, set[int]]:
        """What an event keeps."""
        return self.recording, set(self.ends)

    def wait(self, mark: tuple[Recording | None, set[int]]) -> None:
        """For an event."""
        recording, ends = mark
        if recording is None:
            if self.recording is not None:
                raise CaptureError("capture isolation: an event from outside")
            return
        if self.recording is None:
            self.recording, self.ends = recording, set()
            recording.streams.append(self)
        assert self.recording is recording
        self.ends |= ends
