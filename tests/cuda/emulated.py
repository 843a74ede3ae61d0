"""Single PTX instructions on the emulator, without NVRTC: what each lane gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.arguments import packed
from gpubp.backends.cuda.emulator.launches import Device, Sizes, launch
from gpubp.backends.cuda.emulator.memory import DeviceSpace
from gpubp.backends.cuda.emulator.program import loaded

KINDS = {"u8": "b16", "s8": "b16"}
WIDTH = {"1": 1, "8": 1, "16": 2, "32": 4, "64": 8}
DTYPE = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "pred": np.uint8}


def dtype_of(kind: str) -> np.dtype[Any]:
    """The array that holds values of a PTX type."""
    if kind in DTYPE:
        return np.dtype(DTYPE[kind])
    if kind in ("bf16", "f16x2", "bf16x2", "tf32"):
        return np.dtype(np.uint16 if kind == "bf16" else np.uint32)
    return np.dtype(("i" if kind[0] == "s" else "u") + str(WIDTH[kind[1:]]))


def _size(kind: str) -> int:
    return dtype_of(kind).itemsize


def ptx_of(lines: str, result: str, kinds: tuple[str, ...]) -> str:
    """A kernel whose thread t loads element t of each array into %a0, %a1, ..., and stores %d."""
    text = [".version 8.0", ".target sm_90", ".address_size 64"]
    params = ", ".join(f".param .u64 p{i}" for i in range(len(kinds) + 1))
    text += [f".visible .entry k({params})", "{", ".reg .b64 %rd<8>;", ".reg .b32 %t;"]
    text += [".reg .pred %q<9>;", ".reg .b16 %h<9>;", ".reg .b32 %w<9>;", ".reg .b64 %l<9>;"]
    text += ["mov.u32 %t, %tid.x;", "mul.wide.u32 %rd0, %t, 16;"]
    for i, kind in enumerate(kinds):
        register = "b16" if _size(kind) <= 2 else f"b{8 * _size(kind)}"
        load = f"u{8 * _size(kind)}" if _size(kind) < 2 else f"b{8 * _size(kind)}"
        text += [f".reg .{register} %a{i};", f"ld.param.u64 %rd1, [p{i}];"]
        text += ["add.s64 %rd1, %rd1, %rd0;", f"ld.global.{load} %a{i}, [%rd1];"]
    register = (
        "pred" if result == "pred" else "b16" if _size(result) <= 2 else f"b{8 * _size(result)}"
    )
    text += [f".reg .{register} %d;", *lines.strip().splitlines()]
    text += [f"ld.param.u64 %rd1, [p{len(kinds)}];", "add.s64 %rd1, %rd1, %rd0;"]
    if result == "pred":
        text += [".reg .b16 %answer;", "selp.b16 %answer, 1, 0, %d;"]
        text += ["st.global.u8 [%rd1], %answer;"]
    else:
        text += [f"st.global.b{8 * _size(result)} [%rd1], %d;"]
    return "\n".join([*text, "ret;", "}"])


def spread(x: NDArray[Any]) -> NDArray[np.uint8]:
    """One element every 16 bytes."""
    out = np.zeros((len(x), 16), np.uint8)
    out[:, : x.dtype.itemsize] = np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1)
    return out


def run_lines(lines: str, result: str, *operands: tuple[str, Any]) -> NDArray[Any]:
    """What `%d` is for every lane.

    Args:
        lines: PTX that reads %a0, %a1, ... and writes %d.
        result: its type.
        *operands: (type, values) of each.
    """
    kinds = tuple(kind for kind, _ in operands)
    arrays = [np.asarray(values, dtype_of(kind)) for kind, values in operands]
    count = len(arrays[0]) if arrays else 32
    memory = DeviceSpace()
    program = loaded(ptx_of(lines, result, kinds), "", memory)
    out = np.zeros((count, 16), np.uint8)
    params = program.module.functions["k"].params
    given = packed("k", params, [*[spread(a) for a in arrays], out], memory)
    launch(Device(memory), program.get("k"), Sizes((1, 1, 1), (count, 1, 1)), given.params)
    found = given.arrays[-1].value(memory)
    dtype = dtype_of(result)
    return np.ascontiguousarray(found[:, : dtype.itemsize]).view(dtype).reshape(-1)
