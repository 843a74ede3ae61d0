"""What would make a kernel slow, read in its PTX: 64-bit divisions and local memory inside of its
inner loops; and `ld.global.nc`, which may read what was there before another thread wrote.

Comes in: PTX. Goes out: for each kernel, what is in its inner loops, and what is wrong there. A
loop counts if no other is inside and it reads memory: one that only numbers the rows of a tile,
once a tile, may divide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from gpubp.backends.cuda.emulator.blocks import Graph, cut
from gpubp.backends.cuda.emulator.inline import flatten
from gpubp.backends.cuda.emulator.ptx import Instruction, parse

WIDE = re.compile(r"(?:div|rem)\.[su]64")  # some hundred instructions
LOCAL = re.compile(r"(?:ld|st)(?:\.volatile)?\.local\b")
READS = re.compile(r"ld(?!\.param|\.const)|ldmatrix|wmma\.load|atom")
CACHED = re.compile(r"ld\.global(?:\.\w+)*\.nc\b")


def loops(graph: Graph) -> list[set[int]]:
    """The natural loops of a kernel, as numbers of blocks: a header with all ways back to it."""
    found: dict[int, set[int]] = {}
    before: dict[int, list[int]] = {}
    for i, block in enumerate(graph.blocks):
        for target in block.targets:
            before.setdefault(target, []).append(i)
    for latch, header in _backwards(graph):
        body = found.setdefault(header, {header})
        waiting = [latch]
        while waiting:
            block = waiting.pop()
            if block not in body:
                body.add(block)
                waiting += before.get(block, [])
    return list(found.values())


def _backwards(graph: Graph) -> Iterator[tuple[int, int]]:
    """Jumps to a block on the way from the first one: (from, to)."""
    state = [0] * len(graph.blocks)  # 1: on the way, 2: done
    stack = [(0, iter(graph.blocks[0].targets))]
    state[0] = 1
    while stack:
        block, targets = stack[-1]
        target = next(targets, None)
        if target is None:
            state[block] = 2
            stack.pop()
        elif state[target] == 1:
            yield block, target
        elif state[target] == 0:
            state[target] = 1
            stack.append((target, iter(graph.blocks[target].targets)))


def innermost(ptx: str) -> dict[str, list[list[Instruction]]]:
    """Kernel -> its loops that read memory and have no loop inside, as instructions."""
    module = parse(ptx)
    found = {}
    for name in (n for n, f in module.functions.items() if f.entry):
        graph = cut(flatten(module, name))
        every = loops(graph)
        inner = [loop for loop in every if not any(other < loop for other in every)]
        steps = [[step for i in sorted(loop) for step in graph.blocks[i].steps] for loop in inner]
        found[name] = [loop for loop in steps if any(READS.match(s.opcode) for s in loop)]
    return found


def findings(ptx: str) -> dict[str, list[str]]:
    """Kernel -> what is wrong with it, a line each."""
    wrong = {}
    for name, inner in innermost(ptx).items():
        lines = []
        for what, pattern in (("a 64-bit division", WIDE), ("local memory", LOCAL)):
            steps = [s for loop in inner for s in loop if pattern.match(s.opcode)]
            if steps:
                lines.append(f"{what} in an inner loop: {steps[0]}")
        if CACHED.search(ptx):
            lines.append("a load that is not ordered with stores: .nc")
        wrong[name] = lines
    return wrong


_NAMED = re.compile(r"ldmatrix|ld\.shared|st\.shared|cvt\.rn|cp\.async\.\w+|ld\.param|[a-z]+")


def slice_counts(ptx: str, name: str, products: int) -> Counter[str]:
    """Instructions of the loop in which a thread makes `products` of tensor cores, by their first
    words; "all" of them. A loop within, which makes some of these, counts as often as it runs.
    """
    module = parse(ptx)
    graph = cut(flatten(module, name))
    every = sorted(loops(graph), key=len)
    found = [c for loop in every if (c := _counted(graph, loop))["mma"]]
    inner = found[0]
    times = products // inner["mma"]
    if times == 1:
        return inner
    # The loops around it have its instructions once.
    return found[1] + Counter({key: (times - 1) * n for key, n in inner.items()})


def _counted(graph: Graph, loop: set[int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for i in loop:
        block = graph.blocks[i]
        for step in [*block.steps, *([block.end] if block.end is not None else [])]:
            match = _NAMED.match(step.opcode)
            assert match is not None
            found.update([match[0], "all"])
            if "trans" in step.words:
                found["ldmatrix.trans"] += 1
    return found
