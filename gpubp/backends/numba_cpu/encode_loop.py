"""Encoding of loops: the body's parts one behind the other, and where its buffers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import place
from gpubp.backends.numba_cpu.encode_matmul import keep_b
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.compiler.loop_body import BEFORE, FINAL, VALUE, Loop
from gpubp.compiler.parts import PRODUCT, Buffer, Operand, Part
from gpubp.compiler.program import Program
from gpubp.core.store import address_of, aligned_zeros, round_up

Encode = Callable[[Program], Sequence[EncodedPart | None]]
ABSOLUTE = -1  # instead of a buffer: the offset is an address


def encode_loop(part: Part, encode: Encode) -> EncodedPart:
    """A loop; `encode` encodes the parts of its body."""
    return _Encoder(part, encode).encoded()


class _Encoder:
    def __init__(self, part: Part, encode: Encode) -> None:
        assert part.body_program is not None
        self.part, self.made = part, part.body_program
        self.loop: Loop = part.body[0].attrs["loop"]
        self.program: Program = self.made.program
        self.encode = encode
        self.keep: list[Any] = []
        first = len(part.inputs)
        self.pieces: dict[tuple[str, int], Operand] = {}
        for value, operand in part.outputs:
            attrs = part.body[value - first].attrs
            self.pieces[attrs["kind"], attrs["at"]] = operand
        # Two copies of each carry that is not kept in all rounds; its rows in bytes.
        self.turns: dict[int, tuple[int, int]] = {}

    def encoded(self) -> EncodedPart:
        """The part."""
        before, after = self._carries()
        addresses = [self._address(b) for b in self.program.buffers]
        parts = [e for e in zip(self.encode(self.program), self.program.parts) if e[0] is not None]
        lists = (
            ("buffers", addresses, len(words.ADDRESS)),
            ("records", [[0] * len(words.ROUND_RECORD)] * len(parts), len(words.ROUND_RECORD)),
            ("before", before, len(words.COPIED)),
            ("after", after, len(words.COPIED)),
        )
        inner = round_up(8 * len(addresses), words.ALIGN)
        loop, found = self.loop, words.LOOP
        code = [0] * len(found)
        code[found["rounds"]], code[found["reverse"]] = loop.length, int(loop.reverse)
        code[found["by_rows"]], code[found["inner"]] = int(self.part.rows > 0), inner
        code[found["until"]] = self._until()
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
        changing = {position for position, _ in self.loop.carries} | {*self.loop.sliced}
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

    def _until(self) -> int:
        if self.loop.until < 0:
            return -1
        position = self.loop.carries[self.loop.until][0]
        buffers = self.program.buffers
        return next(
            i for i, b in enumerate(buffers) if b.kind == "input" and b.position == position
        )

    def _given(self, position: int) -> Operand:
        """The loop's input at a position."""
        return self.part.inputs[self.part.body[0].args[position]]

    def _carries(self) -> tuple[list[list[int]], list[list[int]]]:
        """Rows to copy before and after the rounds."""
        before, after = [], []
        for k, (position, _) in enumerate(self.loop.carries):
            given = self._given(position)
            nbytes = _bytes(given)
            row = nbytes // max(self.part.rows, 1)
            history, final = self.pieces.get((BEFORE, k)), self.pieces.get((FINAL, k))
            if history is None:
                both = aligned_zeros(2 * round_up(max(nbytes, 1), words.ALIGN), np.uint8)
                self.keep.append(both)
                first = address_of(both)
                self.turns[k] = first, first + both.nbytes // 2
                start, end, other = [ABSOLUTE, first], [ABSOLUTE, first], self.turns[k][1]
            else:
                buffer, offset = place(history)
                last = [offset + self.loop.length * nbytes, offset]
                start_at, end_at = last if self.loop.reverse else last[::-1]
                start, end, other = [buffer, start_at], [buffer, end_at], 0
            before.append([*place(given), 0, *start, row])
            if final is not None:
                after.append([*end, other, *place(final), row])
        return before, after

    def _address(self, buffer: Buffer) -> list[int]:
        """Where a buffer of the body is, round by round."""
        if buffer.kind == "input":
            return self._input(buffer.position)
        if buffer.kind == "output":
            return self._output(buffer.position)
        memory = aligned_zeros(max(buffer.size, 1), np.uint8)
        if buffer.kind == "const":
            memory[: buffer.size] = np.asarray(buffer.payload)
        self.keep.append(memory)
        return [ABSOLUTE, address_of(memory), 0, 0]

    def _input(self, position: int) -> list[int]:
        for k, (carried, _) in enumerate(self.loop.carries):
            if carried == position:
                return self._carry(k, written=False)
        given = self._given(position)
        step = _bytes(given) // max(self.loop.length, 1) if position in self.loop.sliced else 0
        return [*place(given), step, 0]

    def _output(self, position: int) -> list[int]:
        carries = len(self.loop.carries)
        if position < carries:
            return self._carry(position, written=True)
        stack = self.pieces[VALUE, self.made.values[position - carries]]
        return [*place(stack), _bytes(stack) // max(self.loop.length, 1), 0]

    def _carry(self, k: int, written: bool) -> list[int]:
        """Where a carry is read, or written, in each round."""
        history = self.pieces.get((BEFORE, k))
        if history is None:
            first, second = self.turns[k][::-1] if written else self.turns[k]
            return [ABSOLUTE, first, 0, second]
        step = _bytes(history) // (self.loop.length + 1)
        buffer, offset = place(history)
        return [buffer, offset + step * int(written != self.loop.reverse), step, 0]


def _bytes(operand: Operand) -> int:
    return operand.dtype.itemsize * int(np.prod(operand.shape))
