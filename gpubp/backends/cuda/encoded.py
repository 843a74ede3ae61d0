"""The parts of a program, or of a loop's body, as work on the device.

Comes in: a program and what is known of its memory. Goes out: for each part what launches its
kernels. A loop is one kernel where its body allows that (`codegen/encode_rounds.py`); else the
body's launches are made once and run again and again, as the parameters of a launch name entries of
a table that is written anew for each round. Where the program itself finds out how many rounds
there are, the host looks after each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.codegen.encode import encode
from gpubp.backends.cuda.codegen.encode_rounds import rounds_kernel
from gpubp.backends.cuda.copies import Copies
from gpubp.backends.cuda.drivers.base import KernelDriver, Memory
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.launch import AnyLaunch, Context, Launch
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.sources import LoopNumbers, around_loop
from gpubp.backends.cuda.tasks import Beside, beside
from gpubp.backends.loop_places import ABSOLUTE, Copied, LoopPlaces
from gpubp.compiler.loop_body import Loop
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.core import evaluate


class Encoded:
    """A program's parts.

    Args:
        program: the program.
        context: of its memory.
        executor: of the device.

    Attributes:
        of_parts: the launches of each part; of loops, and of what the host does, none.
        asked: what each part's launches use beside its operands.
    """

    def __init__(self, program: Program, context: Context, executor: Executor) -> None:
        self.program, self.context = program, context
        self._executor, self._driver = executor, executor.driver
        self.of_parts: list[Sequence[AnyLaunch]] = []
        self.asked: list[Beside] = []
        self._loops = {
            i: LoopOnDevice(part, context, executor)
            for i, part in enumerate(program.parts)
            if part.body_program is not None
        }

    @property
    def recordable(self) -> bool:
        """No part asks the host."""
        loops = all(loop.recordable for loop in self._loops.values())
        return loops and not any(self._on_host(p) for p in self.program.parts)

    @property
    def reports(self) -> bool:
        """A kernel may find a label or an index out of range; known when all are encoded."""
        return self.context.reports or any(loop.body.reports for loop in self._loops.values())

    @property
    def launches(self) -> int:
        """How many a step has; known when all are encoded."""
        loops = sum(loop.launches for loop in self._loops.values())
        return loops + sum(len(made) for made in self.of_parts)

    @property
    def made(self) -> list[AnyLaunch]:
        """Every launch, of loops' rounds too; known when all are encoded."""
        rounds = [launch for loop in self._loops.values() for launch in loop.made]
        return [*itertools.chain(*self.of_parts), *rounds]

    def encode(self) -> None:
        """Make the launches of each part, in the order in which they run."""
        self.context.copies.begin()
        self.of_parts, self.asked = [], []
        beside(self.context)
        for i, part in enumerate(self.program.parts):
            made: Sequence[AnyLaunch] = []
            if i in self._loops:
                self._loops[i].encode()
            elif not self._on_host(part):
                made = encode(part, self.context)
            self.of_parts.append(made)
            self.asked.append(beside(self.context))
            self.context.copies.written(part)

    def count(self, number: int) -> int:
        """How many launches a part has, or 1 where the host works."""
        if number in self._loops:
            return self._loops[number].launches
        on_host = self._on_host(self.program.parts[number])
        return 1 if on_host else len(self.of_parts[number])

    def works(self) -> list[list[Work]]:
        """For each part, what launches its kernels."""
        return [self._works(*one) for one in enumerate(zip(self.program.parts, self.of_parts))]

    def _works(self, number: int, made: tuple[Part, Sequence[AnyLaunch]]) -> list[Work]:
        part, launches = made
        if number in self._loops:
            return self._loops[number].works()
        if self._on_host(part):
            return [lambda: self._call_custom(part)]
        return [self._executor.bind(launch) for launch in launches]

    def _on_host(self, part: Part) -> bool:
        """A user's op without CUDA source, or with a kernel that this driver cannot launch."""
        if part.kernel != "custom":
            return False
        cuda = part.body[0].spec.cuda
        launches = isinstance(self._driver, KernelDriver)
        return cuda is None or not (isinstance(cuda, str) or launches)

    def _call_custom(self, part: Part) -> None:
        """Run a user's NumPy function on the host: there and back through the host's memory."""
        compute = part.body[0]
        args = [self._fetch(part.inputs[i]) for i in compute.args]
        result = evaluate(compute.spec, args, compute.attrs)
        for _, operand in part.outputs:
            place = self.start(operand.buffer) + operand.place[1]
            self._driver.upload(place, np.ascontiguousarray(result))

    def start(self, buffer: int) -> int:
        """The address of a buffer, within a step (and a round)."""
        found, entry = self.context.locate(buffer)
        if entry is None:
            return found
        word = np.zeros(1, np.int64)
        self._driver.download(self.context.table + 8 * entry, word)
        return found + int(word[0])

    def _fetch(self, operand: Operand) -> NDArray[Any]:
        out = np.empty(operand.shape, operand.dtype)
        self._driver.download(self.start(operand.buffer) + operand.place[1], out)
        return out


class LoopOnDevice:
    """A loop, with memory of its own for the body.

    Args:
        part: of the loop.
        context: of the program around it.
        executor: of the device.

    Attributes:
        body: the body's parts.
    """

    def __init__(self, part: Part, context: Context, executor: Executor) -> None:
        assert part.body_program is not None
        self._part, self._context = part, context
        self._executor, self._driver = executor, executor.driver
        self._loop: Loop = part.body[0].attrs["loop"]
        self._keep: list[Memory] = []
        self._places = LoopPlaces(part, self._room)
        self._entries = [(*self._around(p[:2]), p.other, p.step) for p in self._places.buffers]
        self._table = self._room(8 * len(self._entries), None)
        self._state = self._room(16, None)
        self._numbers = self._uploaded_numbers()
        # The library of products wants operands that stay where they are.
        within = replace(
            context, locate=self._locate, table=self._table, chooser=None, copies=Copies()
        )
        self.body = Encoded(part.body_program.program, replace(within, written=set()), executor)
        self._whole: Launch | None = None
        self._placed = False

    @property
    def recordable(self) -> bool:
        return self._loop.until < 0 and self.body.recordable

    @property
    def launches(self) -> int:
        """How many all rounds have."""
        return 3 if self._whole else 2 + self._loop.length * (1 + self.body.launches)

    @property
    def made(self) -> list[AnyLaunch]:
        """The launch of all rounds, or those of one."""
        return [self._whole] if self._whole else self.body.made

    def _room(self, nbytes: int, content: Any) -> int:
        memory = self._driver.allocate(max(nbytes, 1))
        self._keep.append(memory)
        if content is not None and nbytes:
            self._driver.upload(memory.address, content)
        return memory.address

    def _around(self, place: tuple[int, int]) -> tuple[int, int]:
        """An address, and 0; or bytes, and where the word is that they are counted from."""
        buffer, offset = place
        if buffer == ABSOLUTE:
            return offset, 0
        start, entry = self._context.locate(buffer)
        return start + offset, 0 if entry is None else self._context.table + 8 * entry

    def _locate(self, buffer: int) -> tuple[int, int | None]:
        at, table, other, step = self._entries[buffer]
        return (0, buffer) if table or other or step else (at, None)

    def _uploaded_numbers(self) -> LoopNumbers:
        places = self._places

        def uploaded(rows: Sequence[Sequence[int]]) -> int:
            words = np.array(rows, np.int64).reshape(-1)
            return self._room(words.nbytes, words)

        before = [self._copied(c) for c in places.before]
        after = [self._copied(c) for c in places.after]
        return LoopNumbers(
            uploaded(self._entries),
            *(self._table, self._state, uploaded(before), uploaded(after)),
            *(len(self._entries), len(before), len(after)),
            *(self._loop.length, int(self._loop.reverse), places.until),
        )

    def _copied(self, rows: Copied) -> list[int]:
        source, target = self._around(rows.source), self._around(rows.target)
        return [*source, rows.other, *target, rows.rows * rows.nbytes]

    def encode(self) -> None:
        """Make the launch of all rounds, or those of one; twice, as `size_workspace` has it."""
        numbers = self._numbers
        self._whole = rounds_kernel(self._part, self.body.context, numbers.places, numbers.state)
        if self._whole is None:
            self.body.encode()
            if not self._placed:  # copies have addresses from the next time on
                self._keep += self.body.context.copies.allocate(self._driver)
                self._placed = True

    def works(self) -> list[Work]:
        """What launches the loop's kernels."""
        copied = [*self._places.before, *self._places.after]
        most = max([c.rows * c.nbytes for c in copied], default=0)
        begin, start, end = [
            self._executor.bind(launch) for launch in around_loop(self._numbers, most)
        ]
        if self._whole is not None:
            return [begin, self._executor.bind(self._whole), end]
        inner = [work for works in self.body.works() for work in works]

        def rounds() -> None:
            for _ in range(self._loop.length):
                start()
                if self._loop.until >= 0 and not self._begins():
                    break
                for work in inner:
                    work()

        return [begin, rounds, end]

    def _begins(self) -> bool:
        """Another round begins; waits for the device."""
        state = np.zeros(2, np.int64)
        self._driver.download(self._state, state)
        return bool(state[1])
