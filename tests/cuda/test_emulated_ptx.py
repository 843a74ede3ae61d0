"""PTX as text: declarations, scopes, calls, jumps, and the registers that a block of instructions
needs.
"""

from __future__ import annotations

import numpy as np
import pytest
from emulated import run_lines

from gpubp.backends.cuda.emulator.blocks import bits, cut
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.inline import flatten
from gpubp.backends.cuda.emulator.memory import DeviceSpace
from gpubp.backends.cuda.emulator.program import loaded
from gpubp.backends.cuda.emulator.ptx import Instruction, parse, split

TEXT = """
.version 9.0
.target sm_90
.address_size 64
// a comment with .global .f32 in it
.global .align 4 .u32 counter = 7;
.const .align 4 .b8 table[8] = {0, 0, 128, 63, 0, 0, 32, 64};
.extern .shared .align 16 .b8 dyn[];
.func (.param .b32 back) twice (.param .b32 x)
{
  .reg .b32 %r<3>;
  ld.param.u32 %r1, [x];
  add.s32 %r2, %r1, %r1;
  st.param.b32 [back+0], %r2;
  ret;
}
.visible .entry k(
  .param .u64 k_0,
  .param .align 8 .b8 k_1[24]
)
.maxntid 128, 2, 1
{
  .reg .pred %p<2>;
  .reg .b32 %r<9>;
  .shared .align 4 .b8 mine[64];
  .loc 1 12 3
  ld.param.u32 %r1, [k_1+8];
  {
  .reg .b32 %temp;
  mov.b64 {%temp, %r2}, 5;
  }
  { // callseq 0, 0
  .param .b32 param0;
  st.param.b32 [param0+0], %r1;
  .param .b32 retval0;
  call.uni (retval0),
  twice,
  (
  param0
  );
  ld.param.b32 %r3, [retval0+0];
  } // callseq 0
$L__1:
  .loc 1 14 0
  setp.lt.s32 %p1, %r3, 9;
  @!%p1 bra $L__1;
  ret;
}
"""


def test_declarations() -> None:
    module = parse(TEXT)
    assert module.variables["counter"].values == ("7",)
    assert (module.variables["table"].nbytes, module.variables["table"].space) == (8, "const")
    assert (module.variables["dyn"].nbytes, module.variables["dyn"].align) == (0, 16)
    kernel = module.functions["k"]
    assert (kernel.entry, kernel.bounds) == (True, 256)
    assert [(v.name, v.nbytes, v.align) for v in kernel.params] == [("k_0", 8, 8), ("k_1", 24, 8)]
    memory = DeviceSpace()
    program = loaded(TEXT, "", memory)
    assert memory.read(program.places["counter"], 4).view(np.uint32)[0] == 7
    assert memory.read(program.places["table"], 8).view(np.float32).tolist() == [1, 2.5]


def test_calls_are_written_out() -> None:
    flat = flatten(parse(TEXT), "k")
    texts = [str(s) for s in flat.body if isinstance(s, Instruction)]
    assert "add.s32 %1f$r2, %1f$r1, %1f$r1" in texts
    assert not [t for t in texts if t.startswith("call")]
    assert next(s.line for s in flat.body if isinstance(s, Instruction)) == 12
    again = TEXT.replace("add.s32 %r2, %r1, %r1;", "call.uni (back), twice, (x);")
    with pytest.raises(UnknownInstructionError, match="calls itself"):
        flatten(parse(again), "k")
    elsewhere = TEXT.replace("  twice,", "  elsewhere,")
    with pytest.raises(UnknownInstructionError, match="elsewhere, whose code is not here"):
        flatten(parse(elsewhere), "k")


def test_what_a_block_needs() -> None:
    graph = cut(flatten(parse(TEXT), "k"))
    loop = next(
        b for b in graph.blocks if b.end is not None and b.end.opcode == "bra" and b.end.guard
    )
    names = {n: name for name, n in graph.registers.numbers.items()}
    assert [names[n] for n in bits(loop.uses)] == ["%r3"]
    assert loop.end is not None
    assert loop.end.line == 14
    assert graph.blocks[loop.targets[0]] is loop


def test_operands_are_split_outside_of_brackets() -> None:
    assert split("%r1, [%rd2+4], {%f1, %f2}") == ["%r1", "[%rd2+4]", "{%f1, %f2}"]
    assert split("") == []


@pytest.mark.parametrize("text", ["}", ".surf .b32 x;", "a { b;"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises((UnknownInstructionError, IndexError)):
        parse(TEXT.replace("$L__1:", text))


def test_lanes_that_go_different_ways_meet_again() -> None:
    """A loop of another length for each lane, a jump by a table, and a block behind both."""
    lines = """mov.u32 %d, 0;
mov.u32 %w0, 0;
$L_loop:
setp.ge.u32 %q1, %w0, %a0;
@%q1 bra $L_end;
add.u32 %d, %d, %w0;
add.u32 %w0, %w0, 1;
bra.uni $L_loop;
$L_end:
and.b32 %w1, %a0, 1;
$L_table: .branchtargets $L_even, $L_odd;
brx.idx %w1, $L_table;
$L_even:
add.u32 %d, %d, 1000;
bra.uni $L_last;
$L_odd:
add.u32 %d, %d, 5000;
$L_last:
shfl.sync.bfly.b32 %w2, %d, 0, 31, -1;
add.u32 %d, %w2, 0;"""
    a = np.arange(64) * 7 % 13
    found = run_lines(lines, "u32", ("u32", a))
    expected = a * (a - 1) // 2 + np.where(a % 2, 5000, 1000)
    np.testing.assert_array_equal(found, expected)
