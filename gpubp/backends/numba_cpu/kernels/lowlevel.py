"""Beneath the kernels' language: raw memory, bit casts, atomics, calls through addresses.

Everything works on int64 addresses, so that no kernel allocates, reference-counts or raises, and
the object code needs nothing from Python when it runs.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.language import intrinsic, types

I8 = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
LLVM_OF = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: I32,
    types.int64: I64,
    types.uint8: I8,
    types.uint32: I32,
}
ITEMSIZE = {
    types.float32: 4,
    types.float64: 8,
    types.int32: 4,
    types.int64: 8,
    types.uint8: 1,
    types.uint32: 4,
}


def make_load(kind: Any) -> Any:
    """`load(address, i)`: element i of the array of `kind` at `address`."""

    @intrinsic
    def load(_typing: Any, address: Any, i: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], LLVM_OF[kind].as_pointer())
            return builder.load(builder.gep(pointer, [args[1]]))

        return kind(types.int64, types.int64), codegen

    return load


def make_store(kind: Any) -> Any:
    """`store(address, i, value)`."""

    @intrinsic
    def store(_typing: Any, address: Any, i: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], LLVM_OF[kind].as_pointer())
            builder.store(args[2], builder.gep(pointer, [args[1]]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, kind), codegen

    return store


def _apart(instruction: Any, module: Any, own: str, other: str) -> None:
    """Tell LLVM that accesses tagged `own` never meet those tagged `other`."""
    domain = module.add_metadata(["gpubp strips"])
    scopes = {name: module.add_metadata([name, domain]) for name in (own, other)}
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[own]]))
    instruction.set_metadata("noalias", module.add_metadata([scopes[other]]))


def make_strip_access(kind: Any) -> tuple[Any, Any]:
    """(load, store) for elementwise loops, which LLVM may vectorise without overlap checks.

    An output strip may be the very memory of an operand (an update in place), though not a shifted
    one. That is safe: what is stored at index i depends on everything loaded at index i.
    """

    @intrinsic
    def load(_typing: Any, address: Any, i: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], LLVM_OF[kind].as_pointer())
            value = builder.load(builder.gep(pointer, [args[1]]))
            _apart(value, builder.module, "read", "written")
            return value

        return kind(types.int64, types.int64), codegen

    @intrinsic
    def store(_typing: Any, address: Any, i: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], LLVM_OF[kind].as_pointer())
            done = builder.store(args[2], builder.gep(pointer, [args[1]]))
            _apart(done, builder.module, "written", "read")
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, kind), codegen

    return load, store


load_i64 = make_load(types.int64)
store_i64 = make_store(types.int64)
load_i32 = make_load(types.int32)
store_i32 = make_store(types.int32)
load_u8 = make_load(types.uint8)
store_u8 = make_store(types.uint8)
load_f64 = make_load(types.float64)
store_f64 = make_store(types.float64)
load_f32 = make_load(types.float32)
store_f32 = make_store(types.float32)


@intrinsic
def bits_to_f64(_typing: Any, bits: Any) -> Any:
    """The float64 whose bits are an int64."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


def make_atomic(operation: str) -> Any:
    """`atomic(address, value)`: change the int64 at `address` as LLVM's atomicrmw `operation` does;
    returns the value before. Sequentially consistent.
    """

    @intrinsic
    def atomic(_typing: Any, address: Any, value: Any) -> Any:
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            pointer = builder.inttoptr(args[0], I64.as_pointer())
            return builder.atomic_rmw(operation, pointer, args[1], "seq_cst")

        return types.int64(types.int64, types.int64), codegen

    return atomic


atomic_add, atomic_swap = make_atomic("add"), make_atomic("xchg")


@intrinsic
def load_acquire(_typing: Any, address: Any) -> Any:
    """Read the int64 at `address`; later reads are not moved before it."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store_release(_typing: Any, address: Any, value: Any) -> Any:
    """Write the int64 at `address`; earlier writes are not moved after it."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], I64.as_pointer())
        builder.store_atomic(args[1], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def yield_thread(_typing: Any) -> Any:
    """Let another thread have this core."""

    def codegen(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
        kind = ir.FunctionType(I32, [])
        builder.call(declared(builder.module, name, kind), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def ticks(_typing: Any) -> Any:
    """A clock that runs evenly on this core, in units of its own; always 0 where none is known."""

    def codegen(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        kind = ir.FunctionType(I64, [])
        machine = platform.machine().lower()
        if machine in ("x86_64", "amd64"):
            return builder.call(declared(builder.module, "llvm.readcyclecounter", kind), [])
        if machine in ("aarch64", "arm64"):
            return builder.asm(kind, "mrs $0, cntvct_el0", "=r", [], side_effect=True)
        return I64(0)

    return types.int64(), codegen


@intrinsic
def call_kernel(
    _typing: Any,
    function: Any,
    code: Any,
    bases: Any,
    row0: Any,
    row1: Any,
    tile: Any,
    scratch: Any,
) -> Any:
    """Call a kernel by its address, see `translate.kernel_module`; returns its status."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = I8.as_pointer()
        kind = ir.FunctionType(I32, [I64.as_pointer(), pointer.as_pointer(), *[I64] * 6])
        with builder.goto_entry_block():
            result = builder.alloca(I64)
            error = builder.alloca(pointer)
        target = builder.inttoptr(args[0], kind.as_pointer())
        builder.call(target, [result, error, *args[1:]])
        return builder.load(result)

    return types.int64(*[types.int64] * 7), codegen


@intrinsic
def call_tile(_typing: Any, function: Any, params: Any, a: Any, b: Any, c: Any, offset: Any) -> Any:
    """Call a tile of `kernels.microkernel` by its address."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] * 5)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), codegen


@intrinsic
def call_python(_typing: Any, function: Any, part: Any) -> Any:
    """Call a C function `int64 (int64)`: how user-defined ops get back to Python."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(I64, [I64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return types.int64(types.int64, types.int64), codegen


def declared(module: Any, name: str, kind: Any) -> Any:
    """A function defined elsewhere, entered into the module once."""
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, kind, name)


def alloca_once(builder: Any, kind: Any) -> Any:
    """Room on the stack, made when the function starts."""
    with builder.goto_entry_block():
        return builder.alloca(kind)


@contextmanager
def counted(builder: Any, count: Any) -> Iterator[Any]:
    """A loop whose body is emitted inside; gives the number of the turn."""
    entry = builder.block
    head, body, after = (builder.append_basic_block(n) for n in ("turns", "turn", "turned"))
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(I64)
    index.add_incoming(I64(0), entry)
    builder.cbranch(builder.icmp_signed("<", index, count), body, after)
    builder.position_at_end(body)
    yield index
    index.add_incoming(builder.add(index, I64(1), flags=("nsw",)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
