"""The CPU that kernels are compiled for, and what follows from it.

GPUBP_CPU chooses: "native" (the default), "avx2" or "portable" (128-bit vectors, no fused
multiply-add on x86), to test on one machine what another one would run.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from gpubp.errors import unknown_name

_CHOICES = ("native", "avx2", "portable")
_AVX2 = ("avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "movbe", "sse4.2")


def chosen() -> str:
    """GPUBP_CPU.

    Raises:
        UnknownNameError: it is none of the choices.
    """
    asked = os.environ.get("GPUBP_CPU") or "native"
    if asked not in _CHOICES:
        raise unknown_name("value of GPUBP_CPU", asked, _CHOICES)
    return asked


def cpu() -> tuple[str, str]:
    """(name, features) as LLVM takes them."""
    return _cpu(chosen())


@cache
def _cpu(choice: str) -> tuple[str, str]:
    import llvmlite.binding as llvm

    if choice == "native":
        return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    x86 = llvm.get_default_triple().startswith(("x86_64", "i686"))
    if choice == "avx2" and x86:
        return "x86-64", ",".join(f"+{name}" for name in _AVX2)
    return ("x86-64" if x86 else "generic"), ""


@cache
def _features(text: str) -> frozenset[str]:
    return frozenset(part[1:] for part in text.split(",") if part.startswith("+"))


def _has(feature: str) -> bool:
    return feature in _features(cpu()[1])


@cache
def _is_arm() -> bool:
    import llvmlite.binding as llvm

    return bool(llvm.get_default_triple().startswith(("aarch64", "arm64")))


def lanes(dtype: Any) -> int:
    """Elements in a vector register, for "float32" or "float64"."""
    width = 64 if _has("avx512f") else (32 if _has("avx") else 16)
    return width // (4 if str(dtype) == "float32" else 8)


def tile_rows() -> int:
    """Rows of the largest tile of two vectors: 16 accumulators of 32 registers, or 12 of 16."""
    return 8 if _has("avx512f") or _is_arm() else 6


def has_half_tiles() -> bool:
    """Register tiles of half a vector pay: some CPUs (Zen 4) do 512-bit multiply-adds in two
    halves, so shorter vectors take half as long. Those of AVX2 have nothing to gain.
    """
    return _has("avx512vl")


def tile_kinds() -> int:
    """How many kinds of register tiles there are, see `words.TILE_WHOLE` and what follows it."""
    return 4 if has_half_tiles() else 3


def has_fma() -> bool:
    """A fused multiply-add instruction (x86 from 2013 on; every arm64)."""
    return _has("fma") or _is_arm()


def has_masked_stores() -> bool:
    """Stores of some lanes cost no more than others: AVX-512 only."""
    return _has("avx512f")


def binding() -> Any:
    """llvmlite's binding, ready to emit and load code."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def target_machine(jit: bool) -> Any:
    """LLVM's target for the CPU that kernels are compiled for."""
    llvm = binding()
    name, features = cpu()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=name,
        features=features,
        opt=3,
        reloc="default" if jit else "pic",
        codemodel="jitdefault" if jit else "default",
    )


def symbol_of(name: str) -> str:
    """The exported symbol of a kernel."""
    return f"gpubp_{name}"
