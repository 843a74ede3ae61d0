"""`fma` for whole arrays, which NumPy has not: a loop of LLVM's, compiled for this machine.

Comes in: three arrays of float32 or float64. Goes out: a * b + c, rounded once.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np

_LOOP = """
declare {t} @llvm.fma.{n}({t}, {t}, {t})
define void @{name}(i64 %n, ptr noalias %a, i64 %da, ptr noalias %b, i64 %db,
                     ptr noalias %c, i64 %dc, ptr noalias %out) {{
entry:
  %any = icmp sgt i64 %n, 0
  br i1 %any, label %loop, label %end
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %ia = mul i64 %i, %da
  %ib = mul i64 %i, %db
  %ic = mul i64 %i, %dc
  %pa = getelementptr {t}, ptr %a, i64 %ia
  %pb = getelementptr {t}, ptr %b, i64 %ib
  %pc = getelementptr {t}, ptr %c, i64 %ic
  %x = load {t}, ptr %pa
  %y = load {t}, ptr %pb
  %z = load {t}, ptr %pc
  %r = call {t} @llvm.fma.{n}({t} %x, {t} %y, {t} %z)
  %po = getelementptr {t}, ptr %out, i64 %i
  store {t} %r, ptr %po
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}
"""


@cache
def _functions() -> tuple[Any, dict[np.dtype[Any], Any]]:
    """The engine that holds the code, and the loops."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    text = _LOOP.format(t="float", n="f32", name="fma32")
    text += _LOOP.format(t="double", n="f64", name="fma64")
    # Where the CPU has none it is the C library's, called as `numba_cpu.compiler` says why.
    text += '!llvm.module.flags = !{!0}\n!0 = !{i32 7, !"RtLibUseGOT", i32 1}\n'
    module = llvm.parse_assembly(text)
    target = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine, use_lmm=True)  # see `object_code`
    engine.finalize_object()
    p, i = ctypes.c_void_p, ctypes.c_int64
    kind = ctypes.CFUNCTYPE(None, i, p, i, p, i, p, i, p)
    return (engine, passes), {
        np.dtype(np.float32): kind(engine.get_function_address("fma32")),
        np.dtype(np.float64): kind(engine.get_function_address("fma64")),
    }


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once; scalars or one-dimensional arrays of one float type."""
    shape = (a.shape or b.shape or c.shape) or (1,)
    out = np.empty(shape, a.dtype)
    call = _functions()[1][a.dtype]
    given: list[Any] = []
    kept = []
    for x in (a, b, c):
        x = np.ascontiguousarray(x)
        kept.append(x)
        given += [x.ctypes.data, 0 if x.size == 1 else 1]
    call(out.size, *given, out.ctypes.data)
    return out if a.ndim or b.ndim or c.ndim else out[0]
