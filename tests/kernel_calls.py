"""Functions of the CPU kernels, called from Python: compiled here and now, kept by nobody."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import llvmlite.binding as llvm

from gpubp.backends.numba_cpu.compiler import optimised
from gpubp.backends.numba_cpu.kernels.language import Function
from gpubp.backends.numba_cpu.kernels.translate import kernel_module
from gpubp.backends.numba_cpu.target import binding, target_machine

_number = itertools.count()
_engines: list[Any] = []  # their memory holds the code


def native_call(function: Function) -> Any:
    """The function of int64 numbers, as one that Python can call; it gives an int64."""
    symbol = f"called_{next(_number)}"
    machine = target_machine(jit=True)
    module = optimised(kernel_module(function, symbol), machine)
    nothing = binding().parse_assembly("")
    engine = llvm.create_mcjit_compiler(nothing, machine, use_lmm=True)
    engine.add_module(module)
    engine.finalize_object()
    _engines.append(engine)
    address = engine.get_function_address(symbol)
    count = function.python.__code__.co_argcount
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * count)
    native = kind(address)

    def call(*arguments: int) -> int:
        result = ctypes.c_int64()
        assert native(ctypes.addressof(result), None, *arguments) == 0
        return result.value

    return call
