"""A part as words that its kernel reads: what encoders make."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpubp.compiler.parts import Part


@dataclass
class EncodedPart:
    """A part ready for the run loop.

    Attributes:
        kernel: its name in `kernels.registry`.
        words: its code. Kernel addresses that the code itself needs are listed in `needs`.
        scratch: bytes of scratch for each worker.
        needs: (word, kernel name): to be filled in with the kernel's address.
        customs: (word, part): to be filled in with the address of a function that calls the user's.
        keep: memory whose addresses stand among the words.
    """

    kernel: str
    words: list[int]
    scratch: int
    needs: list[tuple[int, str]]
    customs: list[tuple[int, Part]] = field(default_factory=list)
    keep: list[Any] = field(default_factory=list)
