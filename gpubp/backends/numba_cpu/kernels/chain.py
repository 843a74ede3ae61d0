"""Chains of elementwise ops, interpreted strip by strip: one pass over memory for any chain.

For each strip of the iteration space, every op of the chain runs as a vectorised loop over strips
that stay in the first-level cache. So a new model needs no compilation: its chains are data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.numba_cpu import opcodes, words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import define, native, types
from gpubp.backends.numba_cpu.kernels.philox import make_random
from gpubp.backends.numba_cpu.kernels.scalarmath import CONSTRUCTOR, make_math
from gpubp.backends.numba_cpu.kernels.strided import make_strided
from gpubp.backends.numba_cpu.kernels.vectorstrips import VECTOR_STRIPS

_OPERANDS = "abcde"


def op_source(kind: Any) -> str:
    """Source of `run_ops`: one loop for each op that the type allows."""
    lines = [
        "def run_ops(ops, n_ops, regs, n, first, unused):",
        '    """Run each op on a strip of n elements; `first` is its place in the whole array."""',
        "    for k in range(n_ops):",
        f"        op = ops + k * {8 * words.OP_WORDS}",
        f"        code = load_i64(op, {words.OP_CODE})",
        f"        out = load_i64(regs, load_i64(op, {words.OP_DST}))",
    ]
    for i, name in enumerate(_OPERANDS):
        reg = f"load_i64(op, {words.OP_ARGS + i})"
        lines.append(f"        at_{name} = load_i64(regs, {reg})")
    lines += [
        f"        p = C(bits_to_f64(load_i64(op, {words.OP_P})))",
        f"        q = C(bits_to_f64(load_i64(op, {words.OP_Q})))",
    ]
    keyword = "if"
    for name, functor in opcodes.FUNCTORS.items():
        if kind is types.int64 and not functor.integer:
            continue
        lines.append(f"        {keyword} code == {opcodes.OPCODES[name]}:")
        keyword = "elif"
        if kind is types.float32 and name in VECTOR_STRIPS:
            lines.append(f"            {name}(out, at_a, at_b, n)")
            continue
        lines.append("            for i in range(n):")
        lines += [f"                {x} = load(at_{x}, i)" for x in _OPERANDS[: functor.arity]]
        lines.append(f"                store(out, i, {functor.expression})")
    if kind is not types.int64:
        for name, code in (("uniform", opcodes.RANDOM_UNIFORM), ("normal", opcodes.RANDOM_NORMAL)):
            stream = f"load_i64(op, {words.OP_EXTRA})"
            lines.append(f"        elif code == {code}:")
            lines.append(f"            {name}(out, n, first, at_a, {stream})")
    lines.append("    return 0")
    return "\n".join(lines)


def make_ops(kind: Any) -> Any:
    """The kernel that runs a chain's ops on one strip; its six words are in `op_source`.

    A kernel of its own, called through its address, because it is most of the code: it would be
    optimised and emitted again with each kernel that contains it.
    """
    load, store = low.make_strip_access(kind)
    namespace = {
        "load": load,
        "store": store,
        "load_i64": low.load_i64,
        "bits_to_f64": low.bits_to_f64,
        **vars(make_math(kind)),
        **VECTOR_STRIPS,
    }
    if kind is not types.int64:
        namespace["uniform"], namespace["normal"] = make_random(kind)
    return native(define(op_source(kind), "run_ops", namespace))


def make_chain(kind: Any) -> Any:
    """The chain kernel for one arithmetic type."""
    C = CONSTRUCTOR[kind]
    load = low.make_load(kind)
    strided = make_strided(kind)
    converted, gather, repeat = strided.converted, strided.gather, strided.repeat
    strip_load, strip_store = low.make_strip_access(kind)
    size = low.ITEMSIZE[kind]
    load_i64, store_i64 = low.load_i64, low.store_i64
    store_i32, store_u8 = low.store_i32, low.store_u8
    store_f32, store_f64 = low.store_f32, low.store_f64
    own = {types.float32: 3, types.float64: 4, types.int64: 2}[kind]

    @native
    def put(out, dtype, i, value):
        """Write a value as element i of an array of some dtype."""
        if dtype == 0:
            store_u8(out, i, np.uint8(value != C(0)))
        elif dtype == 1:
            store_i32(out, i, np.int32(value))
        elif dtype == 2:
            store_i64(out, i, np.int64(value))
        elif dtype == 3:
            store_f32(out, i, np.float32(value))
        else:
            store_f64(out, i, np.float64(value))
        return 0

    @native
    def write(strip_at, dtype, out, n):
        """Copy a strip to contiguous memory of some dtype."""
        if dtype == own:
            for i in range(n):
                strip_store(out, i, strip_load(strip_at, i))
        else:
            for i in range(n):
                put(out, dtype, i, load(strip_at, i))
        return 0

    @native
    def point_inputs(chain, inputs, bases, regs, first, n, tile, fresh):
        input_bytes = 8 * (words.INPUT_STRIDES + load_i64(chain, words.CHAIN_NDIM))
        for k in range(load_i64(chain, words.CHAIN_INPUTS)):
            x = inputs + k * input_bytes
            reg = load_i64(x, words.INPUT_REG)
            mode = load_i64(x, words.INPUT_MODE)
            if mode == words.MODE_TILE:
                store_i64(regs, reg, tile + first * size)
                continue
            base = load_i64(bases, load_i64(x, words.INPUT_BUFFER))
            base += load_i64(x, words.INPUT_OFFSET)
            if mode == words.MODE_DIRECT:
                store_i64(regs, reg, base + first * size)
            elif mode == words.MODE_RAW:
                store_i64(regs, reg, base)
            elif mode == words.MODE_SCALAR:
                if fresh:
                    value = converted(base, load_i64(x, words.INPUT_DTYPE), 0)
                    strip = load_i64(regs, reg)
                    for i in range(n):
                        strip_store(strip, i, value)
            elif mode == words.MODE_PERIODIC:
                if fresh:
                    repeat(chain, x, base, first, n, load_i64(regs, reg))
            else:
                gather(chain, x, base, first, n, load_i64(regs, reg))
        return 0

    @native
    def run(chain, bases, first, stop, tile, scratch):
        n_inputs = load_i64(chain, words.CHAIN_INPUTS)
        n_ops = load_i64(chain, words.CHAIN_OPS)
        n_outputs = load_i64(chain, words.CHAIN_OUTPUTS)
        n_regs = load_i64(chain, words.CHAIN_REGS)
        run_ops = load_i64(chain, words.CHAIN_RUN_OPS)
        ndim = load_i64(chain, words.CHAIN_NDIM)
        homes = chain + 8 * (words.CHAIN_DIMS + ndim)
        inputs = homes + 8 * n_regs
        ops = inputs + n_inputs * (8 * (words.INPUT_STRIDES + ndim))
        outputs = ops + n_ops * (8 * words.OP_WORDS)
        regs = scratch
        strips = scratch + load_i64(chain, words.CHAIN_STRIPS)
        for r in range(n_regs):
            home = load_i64(homes, r)
            store_i64(regs, r, strips + home * words.STRIP_BYTES if home >= 0 else 0)
        strip = load_i64(chain, words.CHAIN_STEP)
        at = first
        while at < stop:
            n = min(strip, stop - at)
            point_inputs(chain, inputs, bases, regs, at, n, tile, at == first)
            for k in range(n_outputs):
                y = outputs + k * (8 * words.OUTPUT_WORDS)
                if load_i64(y, words.OUTPUT_DIRECT) == 1:
                    target = load_i64(bases, load_i64(y, words.OUTPUT_BUFFER))
                    target += load_i64(y, words.OUTPUT_OFFSET) + at * size
                    store_i64(regs, load_i64(y, words.OUTPUT_REG), target)
            low.call_kernel(run_ops, ops, n_ops, regs, n, at, 0)
            for k in range(n_outputs):
                y = outputs + k * (8 * words.OUTPUT_WORDS)
                if load_i64(y, words.OUTPUT_DIRECT) == 0:
                    dtype = load_i64(y, words.OUTPUT_DTYPE)
                    item = 1 if dtype == 0 else (4 if dtype == 1 or dtype == 3 else 8)
                    target = load_i64(bases, load_i64(y, words.OUTPUT_BUFFER))
                    target += load_i64(y, words.OUTPUT_OFFSET) + at * item
                    write(load_i64(regs, load_i64(y, words.OUTPUT_REG)), dtype, target, n)
            at += n
        return 0

    @native
    def kernel(code, bases, row0, row1, tile, scratch):
        """Code: elements a row, then the chain. `tile` is the address where element 0 of the value
        made by the calling kernel stands, or would stand.
        """
        per_row = load_i64(code, 0)
        return run(code + 8, bases, row0 * per_row, row1 * per_row, tile, scratch)

    return kernel
