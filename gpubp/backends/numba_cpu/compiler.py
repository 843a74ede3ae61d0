"""From the kernels' sources to object code; run only when the cache does not have it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from gpubp.backends.numba_cpu.kernels import registry
from gpubp.backends.numba_cpu.target import symbol_of, target_machine
from gpubp.cache import write_object


def compile_kernel(name: str, symbol: str) -> bytes:
    """Compile one kernel to an object file that exports `symbol`.

    Args:
        name: as in `kernels.registry`.
        symbol: of the function, or of the table of register tiles.
    """
    module, machine = registry.module(name, symbol), target_machine(jit=False)
    _call_through_table(module)
    if name.startswith(("tiles_", "windows_")):  # which are written as they shall be
        return bytes(machine.emit_object(parsed(module)))
    return bytes(machine.emit_object(optimised(module, machine)))


def _call_through_table(module: Any) -> None:
    """Functions outside (of the C library) are called through a table of addresses in the object.

    Stubs, the usual way, are no part of an object's size when room is made for it, and room is made
    for all of it at once (see `object_code`).
    """
    for function in module.functions:
        if function.is_declaration and not function.name.startswith("llvm."):
            function.attributes.add("nonlazybind")
    flag = module.add_metadata([ir.IntType(32)(7), "RtLibUseGOT", ir.IntType(32)(1)])
    module.add_named_metadata("llvm.module.flags", flag)


def parsed(module: Any) -> Any:
    """A module as LLVM has it."""
    found = llvm.parse_assembly(str(module))
    found.verify()
    return found


def optimised(module: Any, machine: Any) -> Any:
    """The same after LLVM's passes. Straight code is not vectorised: loops are what counts."""
    found = parsed(module)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization = True, False
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(found, passes)
    return found


def compile_into(folder: Path, names: list[str]) -> None:
    """Compile kernels and keep them, one by one."""
    for name in names:
        write_object(folder, name, compile_kernel(name, symbol_of(name)))


if __name__ == "__main__":  # python -m ...compiler FOLDER NAME...
    compile_into(Path(sys.argv[1]), sys.argv[2:])
