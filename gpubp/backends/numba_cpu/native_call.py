"""A function of the kernels' language as one that Python calls: compiled here and now, kept by
nobody. For loops that are no kernels, and for tests of the language.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

from gpubp.backends.numba_cpu.compiler import optimised
from gpubp.backends.numba_cpu.kernels.language import Function
from gpubp.backends.numba_cpu.kernels.translate import kernel_module
from gpubp.backends.numba_cpu.target import binding, target_machine

_number = itertools.count()
_engines: list[Any] = []  # their memory holds the code


def native_call(function: Function) -> Callable[..., int]:
    """The function of int64 numbers, as one that Python can call; it gives an int64."""
    symbol = f"called_{next(_number)}"
    machine = target_machine(jit=True)
    module = optimised(kernel_module(function, symbol), machine)
    engine = binding().create_mcjit_compiler(binding().parse_assembly(""), machine, use_lmm=True)
    engine.add_module(module)
    engine.finalize_object()
    _engines.append(engine)
    count = function.python.__code__.co_argcount
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * count)
    native = kind(engine.get_function_address(symbol))

    def call(*arguments: int) -> int:
        result = ctypes.c_int64()
        if native(ctypes.addressof(result), None, *arguments) != 0:
            raise AssertionError(f"{function.python.__name__} did not end")
        return result.value

    return call
