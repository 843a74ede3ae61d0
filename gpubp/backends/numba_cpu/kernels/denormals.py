"""How this thread's floating-point arithmetic treats denormal numbers."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.language import intrinsic, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I8, I32, I64, declared


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


# Bits by which denormal operands and results are 0: of MXCSR, of FPCR.
FLUSH = 0x8040 if _is_x86() else 1 << 24 if _is_arm() else 0


@intrinsic
def float_control(_typing: Any) -> Any:
    """This thread's control word of floating-point arithmetic; 0 where none is known."""

    def codegen(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if _is_x86():
            with builder.goto_entry_block():
                word = builder.alloca(I32)
            kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer()])
            store = declared(builder.module, "llvm.x86.sse.stmxcsr", kind)
            builder.call(store, [builder.bitcast(word, I8.as_pointer())])
            return builder.zext(builder.load(word), I64)
        if _is_arm():
            return builder.asm(ir.FunctionType(I64, []), "mrs $0, fpcr", "=r", [], True)
        return I64(0)

    return types.int64(), codegen


@intrinsic
def set_float_control(_typing: Any, word: Any) -> Any:
    """Put a control word that `float_control` gave, with or without `FLUSH`, in its place."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if _is_x86():
            with builder.goto_entry_block():
                word = builder.alloca(I32)
            builder.store(builder.trunc(args[0], I32), word)
            kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer()])
            load = declared(builder.module, "llvm.x86.sse.ldmxcsr", kind)
            builder.call(load, [builder.bitcast(word, I8.as_pointer())])
        elif _is_arm():
            kind = ir.FunctionType(ir.VoidType(), [I64])
            builder.asm(kind, "msr fpcr, $0", "r", [args[0]], True)
        return context.get_dummy_value()

    return types.void(types.int64), codegen
