"""What the emulator reports: a launch that a GPU would refuse, or a thread that did something
wrong.
"""

from __future__ import annotations

from gpubp.errors import BackendError

Index = tuple[int, int, int]
KINDS = (
    "race",
    "bounds",
    "alignment",
    "unwritten",
    "barrier",
    "launch",
    "assertion",
    "endless",
)


class KernelError(BackendError):
    """A kernel, or its launch, did what it must not do.

    Attributes:
        kind: one of KINDS.
        kernel: its name.
        block: index of the block; None if it is no single block's doing.
        thread: index of the thread in it; None if it is no single thread's doing.
        line: of the source, from 1; 0 if it is not known.
        text: that line.
        reason: in words.
    """

    def __init__(
        self,
        kind: str,
        kernel: str,
        reason: str,
        block: Index | None = None,
        thread: Index | None = None,
        line: int = 0,
        text: str = "",
    ) -> None:
        self.kind, self.kernel, self.reason = kind, kernel, reason
        self.block, self.thread, self.line, self.text = block, thread, line, text
        where = f", block {block}" * (block is not None) + f", thread {thread}" * bool(thread)
        at = f" (line {line}: {text.strip()})" if line else ""
        super().__init__(f"kernel {kernel}{where}: {reason}{at}")


class UnknownInstructionError(BackendError):
    """PTX that the emulator does not know.

    Attributes:
        instruction: its text.
    """

    def __init__(self, instruction: str, why: str = "") -> None:
        self.instruction = instruction
        super().__init__(
            f"the emulator does not know this PTX: {instruction!r}{': ' * bool(why)}{why}. "
            "A GPU may run it; please report it with the source."
        )
