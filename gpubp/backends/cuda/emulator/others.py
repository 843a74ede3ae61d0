"""What is left: fences, printing, assertions, hints."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.access import check_state, locate
from gpubp.backends.cuda.emulator.env import Env, Step, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.memory import ALLOCATED
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import Read
from gpubp.backends.cuda.emulator.wave import Frame

_MOST_TEXT = 4096


def _nothing(f: Frame) -> None:
    """A hint, or an order that lanes here keep anyway."""


@family("membar", "fence")
def fence(ins: Instruction, env: Env) -> Step:
    if ins.words[1:2] not in (["cta"],):
        env.traits.add("fence")
    return _nothing


@family("griddepcontrol")
def waits(ins: Instruction, env: Env) -> Step:
    """griddepcontrol.wait: lanes go on when the kernel before has ended, as it has here. What lets
    the next kernel begin is a hint.
    """
    if ins.words[1] == "launch_dependents":
        return _nothing
    if ins.words[1] != "wait":
        raise UnknownInstructionError(str(ins))

    def run(f: Frame) -> None:
        if f.wave.waited is not None:
            ids = f.ids()
            f.wave.waited[ids if f.mask is None else ids[f.mask]] = True

    return run


@family("prefetch", "prefetchu", "nanosleep", "discard", "applypriority", "pmevent")
def hint(ins: Instruction, env: Env) -> Step:
    return _nothing


@family("activemask")
def active(ins: Instruction, env: Env) -> Step:
    """The lanes of the warp that run together now."""
    target = env.target(ins.operands[0])

    def run(f: Frame) -> None:
        bits = np.zeros(f.wave.lanes, np.uint32)
        ids = f.ids()
        bits[ids] = np.uint32(1) << (ids % 32).astype(np.uint32)
        total = bits.reshape(-1, 32).sum(1, dtype=np.uint32)
        f.R[target] = total[ids // 32]

    return run


@family("call.__assertfail")
def failed(ins: Instruction, env: Env) -> Step:
    """assert: (message, file, line, function)."""
    places = [_argument(env, o, ins) for o in ins.operands[-5:]]

    def run(f: Frame) -> None:
        message = _text(f, int(f.spread(places[0](f.R))[0]), ins)
        raise f.wave.fault("assertion", int(f.ids()[0]), f"assertion failed: {message}", ins)

    return run


@family("call.cudaGraphSetConditional")
def conditional(ins: Instruction, env: Env) -> Step:
    """cudaGraphSetConditional: (handle, value)."""
    places = [_argument(env, ins.operands[-2], ins), _argument(env, ins.operands[-1], ins, "b32")]

    def run(f: Frame) -> None:
        handles, values = (f.spread(place(f.R)) for place in places)
        ids = np.arange(f.n) if f.mask is None else np.flatnonzero(f.mask)
        for i in ids:
            if int(handles[i]) not in f.wave.memory.conditions:
                text = f"{int(handles[i]):#x} is no handle of a condition"
                raise f.wave.fault("bounds", int(f.ids()[i]), text, ins)
            f.wave.memory.conditions[int(handles[i])] = int(values[i])

    return run


@family("call.vprintf")
def printed(ins: Instruction, env: Env) -> Step:
    """printf: (result, format, address of the arguments)."""
    result = env.place(f"[{ins.operands[0]}+0]", "b32", add=True)
    form, values = (_argument(env, o, ins) for o in ins.operands[1:3])
    assert result is not None

    def run(f: Frame) -> None:
        starts, places = f.spread(form(f.R)), f.spread(values(f.R))
        for i, lane in enumerate(f.ids()):
            text = _text(f, int(starts[i]), ins)
            f.wave.launch.printed.append(_formatted(f, i, int(lane), text, int(places[i]), ins))
        f.R[result] = np.uint32(0)

    return run


def _argument(env: Env, name: str, ins: Instruction, kind: str = "b64") -> Read:
    n = env.place(f"[{name}+0]", kind, add=False)
    if n is None:
        raise UnknownInstructionError(str(ins), "an argument that nobody wrote")
    return lambda R: R[n]


def _text(f: Frame, address: int, ins: Instruction) -> str:
    """Up to the zero."""
    one = np.array([address], np.uint64)
    (p,) = locate(Frame([], f.ids()[:1], 1, f.wave), "", one, 1, ins)
    start = int(p.at[0])
    raw = bytes(p.space.data[start : start + _MOST_TEXT])
    return raw.partition(b"\0")[0].decode(errors="replace")


_FORM = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?(hh|h|ll|l|z|j|t)?([diouxXeEfgGaAcsp%])")


def _formatted(f: Frame, i: int, lane: int, text: str, place: int, ins: Instruction) -> str:
    """A thread's line; arguments lie one behind the other, each at a multiple of its size."""
    single = Frame([], np.array([lane]), 1, f.wave)
    at = place

    def value(match: re.Match[str]) -> str:
        nonlocal at
        size, kind = match.groups()
        if kind == "%":
            return "%"
        width = 8 if kind in "eEfgGaAsp" or size in ("l", "ll", "z", "j", "t") else 4
        at = -(-at // width) * width
        (p,) = locate(single, "", np.array([at], np.uint64), width, ins)
        check_state(single, p, width, ALLOCATED, ins)
        bits = p.space.load(p.at, width)[0]
        at += width
        return _shown(f, match[0].replace(size or "", "", 1) if size else match[0], kind, bits, ins)

    return _FORM.sub(value, text)


def _shown(f: Frame, form: str, kind: str, bits: Any, ins: Instruction) -> str:
    if kind in "eEfgG":
        return form % float(bits.view(np.float64))
    if kind in "aA":
        return float(bits.view(np.float64)).hex()
    if kind == "s":
        return form % _text(f, int(bits), ins)
    if kind == "p":
        return hex(int(bits))
    signed = kind in "di"
    number = (
        int(bits.view(np.int32 if bits.dtype.itemsize == 4 else np.int64)) if signed else int(bits)
    )
    return form % (chr(number & 255) if kind == "c" else number)
