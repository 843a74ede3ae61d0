"""From Numba kernels to object code; run only when the cache does not have it."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import types

from gpubp.backends.numba_cpu.kernels import registry
from gpubp.backends.numba_cpu.kernels.microkernel import tiles_module
from gpubp.backends.numba_cpu.objects import cache_folder, symbol_of, target_machine
from gpubp.cache import write_object
from gpubp.errors import BackendError

SIGNATURE = types.int64(*[types.int64] * 6)


def compile_kernel(name: str, symbol: str) -> bytes:
    """Compile one kernel to an object file that exports `symbol`.

    Args:
        name: as in `kernels.registry`, or "tiles_<dtype>" for a table of register tiles.
        symbol: of the function, in Numba's calling convention, or of the table.
    """
    base, _, dtype = name.rpartition("_")
    if base == "tiles":
        module = llvm.parse_assembly(str(tiles_module(dtype, symbol)))
    else:
        module = _numba_module(name, symbol)
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    for variable in module.global_variables:
        if not variable.is_declaration and variable.name != symbol:
            variable.linkage = "internal"
    return bytes(target_machine(jit=False).emit_object(module))


def _numba_module(name: str, symbol: str) -> Any:
    """The optimised LLVM module of a Numba function."""
    function: Any = registry.build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", numba.NumbaWarning)
        compiled = numba.njit(
            SIGNATURE,
            nogil=True,
            error_model="numpy",
            no_cpython_wrapper=True,
            no_cfunc_wrapper=True,
        )(function.py_func)
    signature = compiled.signatures[0]
    mangled = compiled.overloads[signature].fndesc.llvm_func_name
    text = compiled.inspect_llvm(signature).replace(mangled, symbol)
    _check_symbols(name, text)
    return llvm.parse_assembly(text)


def _check_symbols(name: str, text: str) -> None:
    """Object code must run without Numba: refuse calls into its runtime or Python's."""
    foreign = re.findall(r"^declare .*@((?:numba_|NRT_|Py)\w+)", text, re.MULTILINE)
    if foreign:
        raise BackendError(f"CPU kernel {name} needs {foreign}, which only Numba provides.")


def main(arguments: list[str]) -> int:
    """Compile kernels into a folder: `python -m ...compiler FOLDER NAME...`."""
    folder, *names = arguments
    if Path(folder).name.startswith("cpu-") and Path(folder).name != cache_folder().name:
        raise BackendError(
            "an op was registered that a new process does not know, so that its kernels cannot be "
            "compiled: register ops of gpubp in gpubp/ops, and your own with gp.custom_op."
        )
    for name in names:
        write_object(Path(folder), name, compile_kernel(name, symbol_of(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
