"""What blocks of a kernel of whole steps keep in shared memory: planned, counted, and said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from counting_driver import CountingDriver
from test_persistent import BATCH, data, ran, step_on

from gpubp import nn
from gpubp.backends.cuda import execution
from gpubp.backends.cuda.codegen.shares import Share
from gpubp.backends.cuda.codegen.steps_source import BARRIER, _body
from gpubp.backends.cuda.codegen.writer import Params
from gpubp.backends.cuda.execution import kept_for
from gpubp.backends.cuda.kept import (
    BESIDE,
    Kept,
    Place,
    Published,
    keep,
    room_of,
    shared_of,
    traffic,
)
from gpubp.compiler.parts import Buffer, Instruction, Operand, Part
from gpubp.compiler.program import Program

ROOM = room_of("sm_90")


def program_of(*widths: int, batch: int = BATCH, layer: Any = nn.ReLU) -> Program:
    step = step_on(CountingDriver(), *widths, layer=layer)
    found: Program = step.prepare(*data(widths[0], batch))
    return found


@pytest.mark.parametrize(
    ("widths", "batch", "blocks", "before", "alone", "copied"),
    [
        # bytes from and to global memory, and in shared memory: docs/gpu.md has them
        ((64, 100, 10), 200, 128, 11_094_900, (11_075_700, 19_200), (10_856_500, 516_800)),
        (
            (784, 256, 128, 10),
            128,
            128,
            214_370_260,
            (214_357_972, 12_288),
            (213_492_692, 2_214_912),
        ),
        ((2, 8, 2), 4, 1, 2_624, (1_304, 1_320), (1_304, 1_320)),
    ],
)
def test_bytes_of_a_step(
    widths: tuple[int, ...],
    batch: int,
    blocks: int,
    before: int,
    alone: tuple[int, int],
    copied: tuple[int, int],
) -> None:
    """Before, with what a block alone reads, and with what others read, too."""
    program = program_of(*widths, batch=batch)
    assert traffic(program, blocks, Kept()) == (before, 0)
    for copies, moved in ((False, alone), (True, copied)):
        assert traffic(program, blocks, keep(program, blocks, ROOM, copies)) == moved


def test_what_others_read_is_copied_once_for_them() -> None:
    """The inputs, the hidden layer, the losses and both gradients; not labels and logits."""
    program = program_of(64, 100, 10)
    kept = keep(program, 128, ROOM)
    (copies,) = kept.published.values()
    rows = {one.place.row for one in copies}
    assert list(kept.published) == [0] and rows == {4 * n for n in (64, 100, 10)}
    private = keep(program, 128, ROOM, copies=False)
    assert not private.published
    assert {place.row for place in private.places.values()} == {8, 40}


def test_the_model_takes_what_costs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(64, 100, 10)
    assert not kept_for(program, 128, ROOM)[1].published
    monkeypatch.setattr(execution, "COPIES_US", -1.0)
    assert kept_for(program, 128, ROOM)[1].published


def test_what_is_read_most_often_comes_first_where_there_is_little_room() -> None:
    program = program_of(64, 100, 10)
    whole = keep(program, 128, ROOM)
    assert whole.nbytes == 1_488
    small = keep(program, 128, 1_000)
    assert 0 < small.nbytes <= 1_000 and 800 in {2 * p.row for p in small.places.values()}
    assert keep(program, 128, 0) == Kept() == keep(program, 1, ROOM)  # one block: all, or none


def test_room_is_the_architecture_s() -> None:
    assert [room_of(a) + BESIDE for a in ("sm_75", "sm_80", "sm_90")] == [
        n << 10 for n in (64, 163, 227)
    ]
    assert shared_of("sm_999") == 48 << 10


def test_a_report_says_what_stays() -> None:
    text = ran(step_on(CountingDriver(), 64, 100, 10, execution="persistent"), 64)
    assert "19,200 of 11,094,900 bytes that a step moves stay in shared memory" in text
    text = ran(step_on(CountingDriver(), 2, 8, 2, execution="persistent"), 2, batch=4)
    assert "1,320 of 2,624 bytes" in text


def _operand(start: int, rows: int, row: int, axis: int | None = 0, width: int = 0) -> Operand:
    """Of a temporary of float32: `row` numbers from a row to the next, of which it has `width`."""
    return Operand(0, np.dtype("f"), start, (rows, width or row), (row, 1), 0, axis)


def _program(*phases: list[tuple[list[Operand], list[Operand]]]) -> Program:
    def part(reads: list[Operand], writes: list[Operand]) -> Part:
        return Part("elementwise", [], None, reads, [(0, o) for o in writes], 8)

    buffers = [Buffer("arena", "arena", np.dtype("u1"), 1 << 12)]
    made = [Instruction([part(*one) for one in each], i > 0) for i, each in enumerate(phases)]
    return Program(buffers, made, [], [], (), 0, 0)


A, B = _operand(0, 8, 16), _operand(256, 8, 16)


def _places(*phases: list[tuple[list[Operand], list[Operand]]]) -> set[tuple[int, int, bool]]:
    """Which accesses go to own memory: number of a part, byte, whether it writes."""
    found = keep(_program(*phases), 2, ROOM)
    return {(number, start, write) for number, _, start, write in found.places}


def test_only_the_rows_that_wrote_it_read_what_is_kept() -> None:
    written, read = ([], [A]), ([A], [B])
    assert _places([written, read]) == {(0, 0, True), (1, 0, False)}
    assert _places([written], [read]) == {(0, 0, True), (1, 0, False)}
    part_of_a_row = ([_operand(0, 8, 16, width=5)], [B])
    assert _places([written, part_of_a_row]) == {(0, 0, True), (1, 0, False)}
    other_rows = ([_operand(16, 7, 16)], [B])
    assert _places([written], [other_rows]) == set()
    any_rows = ([_operand(0, 8, 16, axis=None)], [B])
    assert _places([written], [any_rows]) == set()
    assert _places([written, read], [any_rows]) == {(0, 0, True), (1, 0, False)}


def test_what_is_written_in_pieces_or_read_too_early_is_not_kept() -> None:
    half, other = _operand(0, 8, 16, width=8), _operand(8, 8, 16, width=8)
    assert _places([([], [half]), ([], [other]), ([A], [B])]) == set()
    whole = ([_operand(0, 8, 16, axis=None)], [B])
    assert _places([([], [A]), ([A], [B]), whole]) == set()
    # Something else is written there in the phase at whose end it would be copied for others.
    over = ([], [half])
    assert _places([([], [A]), ([A], [B]), over], [whole]) == set()
    assert _places([([], [A]), ([A], [B])], [over], [whole]) == {(0, 0, True), (1, 0, False)}


def test_a_part_that_reads_rows_and_the_whole_reads_where_others_do() -> None:
    both = ([A, _operand(0, 8, 16, axis=None)], [B])
    assert _places([([], [A])], [both]) == set()
    assert _places([([], [A]), ([A], [B])], [both]) == {(0, 0, True), (1, 0, False)}


def test_a_copy_waits_for_what_it_copies_alone() -> None:
    """A block's barrier stands before it where a part since the last one wrote there."""
    copied = Published(Place(0, 64), 0, 0, 8)
    share = Share(Params(), [], 0, 8)
    for written, barriers in ((A, 1), (B, 0), (_operand(120, 2, 4), 1)):
        part = _program([([], [written])]).parts[0]
        lines = _body([[(part, share), (copied, share)]], {})
        assert lines.count(BARRIER) == barriers
