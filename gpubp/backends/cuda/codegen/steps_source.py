"""The text of a kernel that runs many steps of some programs: see `kernels/persistent.cuh`.

Comes in: programs, and a block's share of each of their parts. Goes out: one source. Parts of
equal structure are one function, and programs of equal structure one body; sizes and addresses are
numbers in device memory, which a block copies to shared memory when another program has its turn.

Within a phase a block reads only what it wrote itself, so its own barrier is enough, and stands
only where a part touches what an earlier one wrote, or its scratch memory. Between phases all
blocks meet, as they do at a step's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpubp.backends.cuda.codegen.shares import HEADERS, Share
from gpubp.backends.cuda.kept import Published
from gpubp.backends.cuda.launch import THREADS
from gpubp.compiler.parts import Part

MEET, BARRIER = "meeting.meet();", "__syncthreads();"
_ALIGN = 16

_KERNEL = """struct Params {{
  gp::u64 run, arrived, programs;
  gp::i64 steps;
}};

extern "C" __global__ void __launch_bounds__({threads}, 1) run_steps(const Params p) {{
  GP_DYNAMIC_SHARED(unsigned char, shared);
  const gp::Scratch<{scratch}> scratch = {{shared}};
  gp::u64* at = reinterpret_cast<gp::u64*>(shared + {scratch});
  gp::u64* numbers = at + {entries};
  unsigned char* own = shared + {own};
  gp::i64* run = gp::fixed<gp::i64>(p.run);
  const gp::Steps* programs = gp::fixed<const gp::Steps>(p.programs);
  gp::Meeting meeting = {{gp::fixed<gp::u64>(p.arrived), 0}};
  const gp::i64 begin = run[0];
  gp::i64 now = -1;
  for (gp::i64 step = begin; step < begin + p.steps; ++step) {{
    const gp::i64 which = gp::fixed<const gp::i64>(run[1])[2 * step];
    const gp::Steps& of = programs[which];
    if (which != now) {{
      gp::copy_words(gp::fixed<const gp::u64>(of.numbers), of.words, numbers);
      gp::copy_words(gp::fixed<const gp::u64>(of.table), of.order_entry, at);
      now = which;
      __syncthreads();
    }}
    gp::place_step(run, gp::fixed<const gp::i64>(of.rows), of.outputs, of.order_entry, step,
                   reinterpret_cast<gp::i64*>(at));
    __syncthreads();
    switch (of.body) {{
{cases}
    }}
    {meet}
  }}
  if (gp::thread_number() == 0) run[0] = begin + p.steps;
}}
GP_KERNEL(run_steps, Params)
"""


# Shares in the order in which they run, with what they compute, or copy for other blocks.
Phase = Sequence[tuple[Part | Published, Share]]


@dataclass(frozen=True)
class StepShares:
    """What a block does of a program's step.

    Attributes:
        phases: blocks meet between them.
        own: bytes of its temporaries.
    """

    phases: Sequence[Phase]
    own: int

    @property
    def shares(self) -> list[Share]:
        """In order."""
        return [share for phase in self.phases for _, share in phase]

    @property
    def words(self) -> int:
        """Parameters of all of them."""
        return sum(len(share.params) for share in self.shares)

    @property
    def scratch(self) -> int:
        """Bytes of shared memory that one after the other takes."""
        return max(share.scratch for share in self.shares)


@dataclass(frozen=True)
class StepsSource:
    """The source, and what its launches need.

    Attributes:
        text: of the source; its kernel is `run_steps`.
        bodies: for each program, which body runs it.
        shared: bytes of dynamic shared memory.
    """

    text: str
    bodies: tuple[int, ...]
    shared: int


def steps_source(programs: Sequence[StepShares], entries: int) -> StepsSource:
    """The source of a kernel of steps of these programs.

    Args:
        programs: what blocks do of what is run.
        entries: of the longest table of moving addresses, that of the order included.
    """
    functions: dict[str, str] = {}
    bodies: dict[str, int] = {}
    found = []
    for program in programs:
        lines = _body(program.phases, functions)
        found.append(bodies.setdefault("\n".join(lines), len(bodies)))
    scratch = _whole(max(program.scratch for program in programs)) or _ALIGN
    own = _whole(scratch + 8 * (entries + max(program.words for program in programs)))
    cases = [
        f"      case {i}: body{i}(numbers, at, scratch, own, meeting); break;"
        for i in range(len(bodies))
    ]
    kernel = _KERNEL.format(
        threads=THREADS,
        scratch=scratch,
        entries=entries,
        own=own,
        cases="\n".join(cases),
        meet=MEET,
    )
    text = [f'#include "{name}.cuh"' for name in (*HEADERS, "persistent")]
    text += [text_of.replace("NAME", name) for text_of, name in functions.items()]
    text += [_function(i, lines) for lines, i in bodies.items()]
    shared = own + max(program.own for program in programs)
    return StepsSource("\n".join([*text, kernel]), tuple(found), shared)


def _whole(nbytes: int) -> int:
    return -(-nbytes // _ALIGN) * _ALIGN


def _function(number: int, lines: str) -> str:
    head = (
        f"template <class Scratch>\n__device__ __forceinline__ void body{number}("
        "const gp::u64* numbers, const gp::u64* at, const Scratch& scratch, unsigned char* own, "
        "gp::Meeting& meeting) {"
    )
    return "\n".join([head, *[f"  {line}" for line in lines.splitlines()], "}"])


def _body(phases: Sequence[Phase], functions: dict[str, str]) -> list[str]:
    """The parts of a step, in order, with the barriers between them; adds their functions."""
    lines: list[str] = []
    at = 0
    for number, phase in enumerate(phases):
        lines += [MEET] * (number > 0)
        since: list[tuple[Part, Share]] = []  # the block's last barrier
        for part, share in phase:
            if any(_touches(part, share, *before) for before in since):
                lines.append(BARRIER)
                since = []
            name = functions.setdefault(share.text("NAME"), f"part{len(functions)}")
            lines += _call(share, name, at)
            at += len(share.params)
            if isinstance(part, Part):
                since.append((part, share))
    return lines


def _call(share: Share, name: str, at: int) -> list[str]:
    """A block's share of a part, whose parameters begin with so many words before them."""
    kind = f"{name}_params"
    lines = ["{", f"  const {kind}& p = *reinterpret_cast<const {kind}*>(numbers + {at});"]
    if share.rows:
        lines += [
            "  const gp::i64 first = gp::first_of(p.shared_rows, blockIdx.x);",
            "  const gp::i64 stop = gp::first_of(p.shared_rows, blockIdx.x + 1);",
            f"  if (first < stop) {name}(p, at, first, stop, scratch, own);",
        ]
    else:
        lines.append(f"  if (blockIdx.x == 0) {name}(p, at, 0, 1, scratch, own);")
    return [*lines, "}"]


def _touches(part: Part | Published, share: Share, other: Part, others: Share) -> bool:
    """The part touches what the other one wrote, writes what it read, or takes its scratch; or what
    is copied is what the other one wrote.
    """
    if isinstance(part, Published):
        return any(write and part.meets(operand) for operand, write in other.operands())
    if share.scratch and others.scratch:
        return True
    return any(
        (first or second) and a.meets(b)
        for a, first in part.operands()
        for b, second in other.operands()
    )
