"""Atomic operations: PTX ISA, "atom" and "red". Lanes take their turn by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.access import (
    Access,
    Places,
    check_state,
    locate,
    raced,
    watched,
)
from gpubp.backends.cuda.emulator.env import Env, Step, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.loads import space_of
from gpubp.backends.cuda.emulator.memory import WRITTEN
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import (
    BITS,
    DTYPES,
    Value,
    as_dtype,
    halves,
    joined,
    to_bf16,
    widened,
)
from gpubp.backends.cuda.emulator.wave import Frame

Change = Callable[..., Value]


def _wrap_up(old: Value, b: Value) -> Value:
    return np.where(old >= b, old.dtype.type(0), old + old.dtype.type(1))


def _wrap_down(old: Value, b: Value) -> Value:
    return np.where((old == 0) | (old > b), b, old - old.dtype.type(1))


_CHANGES: dict[str, Change] = {
    "add": lambda old, b: old + b,
    "min": np.minimum,
    "max": np.maximum,
    "and": lambda old, b: old & b,
    "or": lambda old, b: old | b,
    "xor": lambda old, b: old ^ b,
    "exch": lambda old, b: b,
    "cas": lambda old, b, c: np.where(old == b, c, old),
    "inc": _wrap_up,
    "dec": _wrap_down,
}


def _of_halves(kind: str) -> Change:
    """Sums of 16-bit floats, one or two of them."""

    def one(a: Value, b: Value) -> Value:
        if kind.startswith("b"):
            return to_bf16(widened(a) + widened(b))
        found = as_dtype(a, DTYPES["f16"]) + as_dtype(b, DTYPES["f16"])
        return as_dtype(np.asarray(found), BITS[2])

    if not kind.endswith("x2"):
        return lambda a, b: one(as_dtype(a, BITS[2]), as_dtype(b, BITS[2]))

    def two(a: Value, b: Value) -> Value:
        return joined(*[one(x, y) for x, y in zip(halves(a), halves(b))])

    return two


@family("atom", "red")
def atomic(ins: Instruction, env: Env) -> Step:
    words, kind = ins.words, ins.words[-1]
    name = next((w for w in words[1:] if w in _CHANGES), "")
    if not name or any(w in ("v2", "v4", "v8", "async") for w in words) or kind not in DTYPES:
        raise UnknownInstructionError(str(ins))
    change = _CHANGES[name]
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        if name != "add":
            raise UnknownInstructionError(str(ins))
        change = _of_halves(kind)
    returns = words[0] == "atom"
    operands = ins.operands[1:] if returns else ins.operands
    base, offset = env.address(operands[0], ins)
    reads = [env.read(o, kind, ins) for o in operands[1:]]
    target = env.target(ins.operands[0]) if returns else None
    if "fence" not in env.traits and any(w in ("acq_rel", "release", "acquire") for w in words):
        env.traits.add("fence")
    access = Access(ins, space_of(ins), DTYPES[kind].itemsize, 1, True)

    def run(f: Frame) -> None:
        address = f.spread(base(f.R) + np.uint64(offset & 0xFFFFFFFFFFFFFFFF))
        given = [f.spread(read(f.R)) for read in reads]
        found = np.zeros(f.n, DTYPES[kind])
        for p in locate(f, access.space, address, access.width, ins):
            chosen = slice(None) if p.chosen is None else p.chosen
            found[chosen] = _changed(f, p, access, change, [g[chosen] for g in given])
        if target is not None:
            f.R[target] = found

    return run


def _changed(f: Frame, p: Places, access: Access, change: Change, given: list[Any]) -> Any:
    """Change memory lane by lane; returns what each found there."""
    width, ins = access.width, access.ins
    check_state(f, p, width, WRITTEN, ins)
    seen, races = watched(f, p), f.wave.launch.races
    if seen is not None and races is not None:
        everywhere = np.ones(p.n, np.bool_)
        conflict = races.write(p.space, *_arguments(seen, width, p), everywhere, True)
        raced(f, p, conflict, "changes", ins)
    at, dtype = p.at, given[0].dtype
    found = np.zeros(p.n, dtype)
    for turn in _turns(at):
        old = as_dtype(p.space.load(at[turn], width), dtype)
        found[turn] = old
        new = np.asarray(change(old, *[g[turn] for g in given]), dtype)
        p.space.store(at[turn], new.view(BITS[width]), width)
    return found


def _arguments(seen: tuple[Any, Any], width: int, p: Places) -> tuple[Any, int, Any, bool]:
    return seen[0], width, seen[1], p.name == "shared"


def _turns(at: Any) -> list[Any]:
    """Lanes in groups that have each place once, in order."""
    order = np.argsort(at, kind="stable")
    ordered = at[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    if len(starts) == len(at):
        return [slice(None)]
    lengths = np.diff(np.r_[starts, len(at)])
    rank = np.arange(len(at)) - np.repeat(starts, lengths)
    return [order[rank == r] for r in range(int(lengths.max()))]
