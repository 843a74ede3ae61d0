"""Loads, stores and addresses: PTX ISA, "ld", "st", "cvta"."""

from __future__ import annotations

import numpy as np

from gpubp.backends.cuda.emulator.access import BASES, Access
from gpubp.backends.cuda.emulator.convert import extended
from gpubp.backends.cuda.emulator.env import Env, Step, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.memory import GLOBAL_BASE, SPACE_BITS
from gpubp.backends.cuda.emulator.ptx import SIZES, Instruction
from gpubp.backends.cuda.emulator.values import BITS, DTYPES, as_dtype, fitted
from gpubp.backends.cuda.emulator.wave import Frame

SPACES = ("global", "shared", "local", "const", "param")
ORDERED = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "sc")


def space_of(ins: Instruction) -> str:
    """The space that an opcode names; "" for none."""
    found = next(
        (w.partition("::")[0] for w in ins.words[1:] if w.partition("::")[0] in SPACES), ""
    )
    if "shared::cluster" in ins.opcode:
        raise UnknownInstructionError(str(ins), "memory of other blocks of a cluster")
    return found


def access_of(ins: Instruction) -> Access:
    """What a load or store of the form `ld.space.v2.type` does."""
    words, kind = ins.words, ins.words[-1]
    if kind not in SIZES:
        raise UnknownInstructionError(str(ins), f"the type {kind!r}")
    count = next((int(w[1:]) for w in words if w in ("v2", "v4", "v8")), 1)
    ordered = any(w in ORDERED for w in words)
    return Access(ins, space_of(ins), SIZES[kind], count, ordered)


@family("ld", "ldu")
def load(ins: Instruction, env: Env) -> Step:
    access, kind = access_of(ins), ins.words[-1]
    if access.space == "param" and not env.registers.of(ins.operands[1]):
        return _load_param(ins, env, access)
    names = env.vector(ins.operands[0])
    targets = [(env.target(n), env.dtype(n)) for n in names]
    base, offset = env.address(ins.operands[1], ins)
    more, dtype = np.uint64(offset & 0xFFFFFFFFFFFFFFFF), DTYPES[kind]

    def run(f: Frame) -> None:
        address = base(f.R)
        found = access.load(f, address + more if offset else address)
        for (n, declared), bits in zip(targets, found):
            f.R[n] = extended(as_dtype(bits, dtype), declared)

    return run


def _load_param(ins: Instruction, env: Env, access: Access) -> Step:
    """A parameter of the kernel, or of a call that was written out."""
    kind, dtype = ins.words[-1], DTYPES[ins.words[-1]]
    names = env.vector(ins.operands[0])
    targets = [(env.target(n), env.dtype(n)) for n in names]
    inside = ins.operands[1].strip("[] ").replace(" ", "")
    name, _, more = inside.partition("+")
    if name in env.params:
        start = env.params[name] + int(more or 0)

        def run(f: Frame) -> None:
            for i, (n, declared) in enumerate(targets):
                at = start + i * access.width
                found = np.frombuffer(f.wave.launch.params, dtype, 1, at)[0]
                f.R[n] = extended(found, declared)

        return run
    source = env.place(ins.operands[1], kind, add=False)
    if source is None or len(targets) > 1:
        raise UnknownInstructionError(str(ins), "a part of a parameter that was written as a whole")
    n, declared = targets[0]
    return lambda f: f.R.__setitem__(n, extended(fitted(f.R[source], dtype), declared))


@family("st")
def store(ins: Instruction, env: Env) -> Step:
    access, kind = access_of(ins), ins.words[-1]
    names = env.vector(ins.operands[1])
    bits = f"b{8 * SIZES[kind]}"
    reads = [env.read(n, bits if env.kind(n) else kind, ins) for n in names]
    if access.space == "param":
        if len(reads) > 1:
            raise UnknownInstructionError(str(ins), "a vector as a parameter of a call")
        target, read = env.place(ins.operands[0], bits, add=True), reads[0]
        assert target is not None
        return lambda f: f.R.__setitem__(target, read(f.R))
    base, offset = env.address(ins.operands[0], ins)
    more, dtype = np.uint64(offset & 0xFFFFFFFFFFFFFFFF), BITS[access.width]

    def run(f: Frame) -> None:
        address = base(f.R)
        values = [as_dtype(read(f.R), dtype) for read in reads]
        access.store(f, address + more if offset else address, values)

    return run


@family("cvta")
def to_address(ins: Instruction, env: Env) -> Step:
    """From an address in a space to a generic one, or (`.to`) back."""
    base = np.uint64(BASES.get(space_of(ins), 0))
    kind = ins.words[-1]
    read = env.read(ins.operands[1], kind, ins)
    target, back = env.target(ins.operands[0]), "to" in ins.words

    def run(f: Frame) -> None:
        x = read(f.R)
        f.R[target] = x - base if back else x + base

    return run


@family("isspacep")
def in_space(ins: Instruction, env: Env) -> Step:
    name = space_of(ins)
    read, target = env.read(ins.operands[1], "u64", ins), env.target(ins.operands[0])
    number = np.uint64(BASES.get(name, GLOBAL_BASE) >> SPACE_BITS)
    return lambda f: f.R.__setitem__(target, read(f.R) >> np.uint64(SPACE_BITS) == number)
