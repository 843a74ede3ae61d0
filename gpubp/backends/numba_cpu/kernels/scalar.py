"""Groups of scalar ops (learning rates, step counts, bias corrections), run by one worker.

Each value has two words of scratch: as a float64, and as an int64 where it is an integer or a
boolean. Ops on integers are done in int64, all others in float64; results are rounded, or wrapped,
to their own dtype after each op.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import opcodes, words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import define, native, types
from gpubp.backends.numba_cpu.kernels.scalarmath import make_math

load_i64, load_i32, load_u8 = low.load_i64, low.load_i32, low.load_u8
load_f32, load_f64 = low.load_f32, low.load_f64
store_i64, store_f64 = low.store_i64, low.store_f64


def _source(integers: bool) -> str:
    lines = ["def compute(code, a, b, c, d, e, p, q):"]
    for name, functor in opcodes.FUNCTORS.items():
        if functor.integer or not integers:
            lines.append(f"    if code == {opcodes.OPCODES[name]}:")
            lines.append(f"        return wide({functor.expression})")
    lines.append("    return a")
    return "\n".join(lines)


def _make_compute(integers: bool) -> Any:
    kind, wide = (types.int64, np.int64) if integers else (types.float64, np.float64)
    names = {"wide": wide, **vars(make_math(kind))}
    return native(define(_source(integers), "compute", names))


_compute, _compute_integer = _make_compute(False), _make_compute(True)


@native(inline=True)
def _set_integer(scratch, at, dtype, value):
    """An integer, of which a float32 (if that is the dtype) is rounded once."""
    if dtype == 0:
        value = np.int64(value != 0)
    elif dtype == 1:
        value = np.int64(np.int32(value))
    number = np.float64(np.float32(value)) if dtype == 3 else np.float64(value)
    store_f64(scratch, 2 * at, number)
    store_i64(scratch, 2 * at + 1, value)
    return 0


@native(inline=True)
def _set_float(scratch, at, dtype, value):
    """The result of an op on floats."""
    if dtype == 3:
        value = np.float64(np.float32(value))
    store_f64(scratch, 2 * at, value)
    if dtype < 3:
        _set_integer(scratch, at, dtype, np.int64(value))
    return 0


@native(inline=True)
def _read(address, dtype, scratch, at):
    if dtype == 0:
        _set_integer(scratch, at, dtype, np.int64(load_u8(address, 0)))
    elif dtype == 1:
        _set_integer(scratch, at, dtype, np.int64(load_i32(address, 0)))
    elif dtype == 2:
        _set_integer(scratch, at, dtype, load_i64(address, 0))
    elif dtype == 3:
        store_f64(scratch, 2 * at, np.float64(load_f32(address, 0)))
    else:
        store_f64(scratch, 2 * at, load_f64(address, 0))
    return 0


@native(inline=True)
def _write(address, dtype, scratch, at):
    if dtype == 0:
        low.store_u8(address, 0, np.uint8(load_i64(scratch, 2 * at + 1)))
    elif dtype == 1:
        low.store_i32(address, 0, np.int32(load_i64(scratch, 2 * at + 1)))
    elif dtype == 2:
        store_i64(address, 0, load_i64(scratch, 2 * at + 1))
    elif dtype == 3:
        low.store_f32(address, 0, np.float32(load_f64(scratch, 2 * at)))
    else:
        store_f64(address, 0, load_f64(scratch, 2 * at))
    return 0


@native
def _run_integers(op, scratch):
    """One op whose operands are integers or booleans."""
    args = op + 8 * words.OP_ARGS
    value = _compute_integer(
        load_i64(op, words.OP_CODE),
        load_i64(scratch, 2 * load_i64(args, 0) + 1),
        load_i64(scratch, 2 * load_i64(args, 1) + 1),
        load_i64(scratch, 2 * load_i64(args, 2) + 1),
        load_i64(scratch, 2 * load_i64(args, 3) + 1),
        load_i64(scratch, 2 * load_i64(args, 4) + 1),
        np.int64(0),
        np.int64(0),
    )
    dtype = load_i64(op, words.OP_EXTRA) - words.OF_INTEGERS
    return _set_integer(scratch, load_i64(op, words.OP_DST), dtype, value)


@native
def _run_floats(op, scratch):
    """One op with an operand that is a float; its booleans are 0.0 and 1.0."""
    args = op + 8 * words.OP_ARGS
    value = _compute(
        load_i64(op, words.OP_CODE),
        load_f64(scratch, 2 * load_i64(args, 0)),
        load_f64(scratch, 2 * load_i64(args, 1)),
        load_f64(scratch, 2 * load_i64(args, 2)),
        load_f64(scratch, 2 * load_i64(args, 3)),
        load_f64(scratch, 2 * load_i64(args, 4)),
        load_f64(op, words.OP_P),
        load_f64(op, words.OP_Q),
    )
    return _set_float(scratch, load_i64(op, words.OP_DST), load_i64(op, words.OP_EXTRA), value)


@native
def scalar(code, bases, row0, row1, tile, scratch):
    """Code: numbers of inputs, ops and outputs; inputs (dtype, buffer, offset); ops as in a chain,
    whose extra is the dtype of the result, plus OF_INTEGERS if no operand is a float; outputs
    (value, dtype, buffer, offset).
    """
    n_inputs, n_ops, n_outputs = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
    at = code + 24
    for i in range(n_inputs):
        address = load_i64(bases, load_i64(at, 1)) + load_i64(at, 2)
        _read(address, load_i64(at, 0), scratch, i)
        at += 24
    for _ in range(n_ops):
        if load_i64(at, words.OP_EXTRA) >= words.OF_INTEGERS:
            _run_integers(at, scratch)
        else:
            _run_floats(at, scratch)
        at += 8 * words.OP_WORDS
    for _ in range(n_outputs):
        address = load_i64(bases, load_i64(at, 2)) + load_i64(at, 3)
        _write(address, load_i64(at, 1), scratch, load_i64(at, 0))
        at += 32
    return 0
