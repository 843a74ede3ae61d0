"""Encoding of loops: the body's parts one behind the other, and where its buffers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.backends.loop_places import Copied, LoopPlaces
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_matmul import keep_b
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.compiler.loop_body import Loop
from gpubp.compiler.parts import PRODUCT, Part
from gpubp.compiler.program import Program
from gpubp.core.store import address_of, aligned_zeros, round_up

Encode = Callable[[Program], Sequence[EncodedPart | None]]


def encode_loop(part: Part, encode: Encode) -> EncodedPart:
    """A loop; `encode` encodes the parts of its body."""
    return _Encoder(part, encode).encoded()


class _Encoder:
    def __init__(self, part: Part, encode: Encode) -> None:
        assert part.body_program is not None
        self.part = part
        self.loop: Loop = part.body[0].attrs["loop"]
        self.program: Program = part.body_program.program
        self.encode = encode
        self.keep: list[Any] = []
        self.places = LoopPlaces(part, self._room)

    def _room(self, nbytes: int, content: Any) -> int:
        memory = aligned_zeros(max(nbytes, 1), np.uint8)
        if content is not None:
            memory[:nbytes] = content
        self.keep.append(memory)
        return address_of(memory)

    def encoded(self) -> EncodedPart:
        """The part."""
        places = self.places
        parts = [e for e in zip(self.encode(self.program), self.program.parts) if e[0] is not None]
        lists = (
            ("buffers", places.buffers, len(words.ADDRESS)),
            ("records", [[0] * len(words.ROUND_RECORD)] * len(parts), len(words.ROUND_RECORD)),
            ("before", [_copied(c) for c in places.before], len(words.COPIED)),
            ("after", [_copied(c) for c in places.after], len(words.COPIED)),
        )
        inner = round_up(8 * len(places.buffers), words.ALIGN)
        loop, found = self.loop, words.LOOP
        code = [0] * len(found)
        code[found["rounds"]], code[found["reverse"]] = loop.length, int(loop.reverse)
        code[found["by_rows"]], code[found["inner"]] = int(self.part.rows > 0), inner
        code[found["until"]] = places.until
        for name, entries, _ in lists:
            code[found[name]], code[found[f"many_{name}"]] = len(code), len(entries)
            code += [word for entry in entries for word in entry]
        made = EncodedPart("rounds", code, inner, [], [], self.keep)
        # Scratch of their own for products that keep a copy of B, behind that of all others.
        end = round_up(max([e.scratch for e, _ in parts if e], default=0), words.ALIGN)
        for number, (encoded, part) in enumerate(parts):
            assert encoded is not None
            keeps = self._is_constant(part) and keep_b(part, encoded)
            self._append(made, number, encoded, part, [end if keeps else 0, int(keeps)])
            end += round_up(encoded.scratch, words.ALIGN) if keeps else 0
        made.scratch = inner + end + words.ALIGN
        return made

    def _is_constant(self, part: Part) -> bool:
        """A product whose B is the same in all rounds."""
        if part.kernel != PRODUCT or part.anchor is None:
            return False
        b = part.body[part.anchor].args[1]
        if b >= len(part.inputs):
            return False
        buffer = self.program.buffers[part.inputs[b].buffer]
        changing = self.places.changing()
        given = buffer.kind == "input" and buffer.position not in changing
        return given or buffer.kind == "const"

    def _append(
        self, made: EncodedPart, number: int, encoded: EncodedPart, part: Part, scratch: list[int]
    ) -> None:
        """Put the code of a part behind that of the loop; `scratch`: where, and what is kept."""
        start = len(made.words)
        record = made.words[words.LOOP["records"]] + number * len(words.ROUND_RECORD)
        made.words[record : record + len(words.ROUND_RECORD)] = [0, start, part.rows, *scratch]
        made.needs.append((record, encoded.kernel))
        made.needs += [(start + word, name) for word, name in encoded.needs]
        made.customs += [(start + word, custom) for word, custom in encoded.customs]
        made.keep += encoded.keep
        made.words += encoded.words


def _copied(rows: Copied) -> list[int]:
    return [*rows.source, rows.other, *rows.target, rows.nbytes]
