"""Groups of scalar ops (learning rates, step counts, bias corrections), run by one worker.

Values are float64 in scratch; results are rounded to their own dtype after each op. Integers are
exact up to 2**53.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

from gpubp.backends.numba_cpu import opcodes, words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.chain import define
from gpubp.backends.numba_cpu.kernels.scalarmath import make_math

load_i64, load_i32, load_u8 = low.load_i64, low.load_i32, low.load_u8
load_f32, load_f64, store_f64 = low.load_f32, low.load_f64, low.store_f64


def _source() -> str:
    lines = ["def compute(code, a, b, c, d, e, p, q):"]
    for name, functor in opcodes.FUNCTORS.items():
        lines.append(f"    if code == {opcodes.OPCODES[name]}:")
        lines.append(f"        return float64({functor.expression})")
    lines.append("    return a")
    return "\n".join(lines)


_compute = njit(error_model="numpy")(
    define(_source(), "compute", {"float64": np.float64, **vars(make_math(types.float64))})
)


@njit(error_model="numpy", inline="always")
def _read(address, dtype):
    if dtype == 0:
        return np.float64(load_u8(address, 0))
    if dtype == 1:
        return np.float64(load_i32(address, 0))
    if dtype == 2:
        return np.float64(load_i64(address, 0))
    if dtype == 3:
        return np.float64(load_f32(address, 0))
    return load_f64(address, 0)


@njit(error_model="numpy", inline="always")
def _write(address, dtype, value):
    if dtype == 0:
        low.store_u8(address, 0, np.uint8(value != 0.0))
    elif dtype == 1:
        low.store_i32(address, 0, np.int32(value))
    elif dtype == 2:
        low.store_i64(address, 0, np.int64(value))
    elif dtype == 3:
        low.store_f32(address, 0, np.float32(value))
    else:
        store_f64(address, 0, value)
    return 0


@njit(error_model="numpy")
def scalar(code, bases, row0, row1, tile, scratch):
    """Code: numbers of inputs, ops and outputs; inputs (dtype, buffer, offset); ops as in a chain;
    outputs (value, dtype, buffer, offset).
    """
    n_inputs, n_ops, n_outputs = load_i64(code, 0), load_i64(code, 1), load_i64(code, 2)
    at = code + 24
    for i in range(n_inputs):
        address = load_i64(bases, load_i64(at, 1)) + load_i64(at, 2)
        store_f64(scratch, i, _read(address, load_i64(at, 0)))
        at += 24
    for _ in range(n_ops):
        value = _compute(
            load_i64(at, words.OP_CODE),
            load_f64(scratch, load_i64(at, words.OP_ARGS)),
            load_f64(scratch, load_i64(at, words.OP_ARGS + 1)),
            load_f64(scratch, load_i64(at, words.OP_ARGS + 2)),
            load_f64(scratch, load_i64(at, words.OP_ARGS + 3)),
            load_f64(scratch, load_i64(at, words.OP_ARGS + 4)),
            load_f64(at, words.OP_P),
            load_f64(at, words.OP_Q),
        )
        if load_i64(at, words.OP_EXTRA) == 3:
            value = np.float64(np.float32(value))
        store_f64(scratch, load_i64(at, words.OP_DST), value)
        at += 8 * words.OP_WORDS
    for _ in range(n_outputs):
        address = load_i64(bases, load_i64(at, 2)) + load_i64(at, 3)
        _write(address, load_i64(at, 1), load_f64(scratch, load_i64(at, 0)))
        at += 32
    return 0
