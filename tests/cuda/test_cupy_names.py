"""What the driver for real GPUs takes from CuPy is there, in the CuPy that is installed.

No GPU is needed: names are looked up, signatures are read, and sources are compiled by NVRTC
through CuPy's own binding. Run it with CuPy 13 and with 14.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from gpubp.backends.cuda.drivers import cupy as device
from gpubp.backends.cuda.drivers import cupy_probe, cupy_scope, nvrtc
from gpubp.backends.cuda.sources import begin_step, expand
from gpubp.errors import BackendError

REASON = "needs CuPy: pip install 'gpubp[cuda13]'"
# What is called on objects, by CuPy's class.
MEMBERS = {
    "cuda.Stream": ("synchronize", "wait_event", "begin_capture", "end_capture", "__enter__"),
    "cuda.Event": ("record", "synchronize", "done"),
    "cuda.Graph": ("launch",),
    "cuda.MemoryPointer": ("ptr", "memset_async"),
    "cuda.PinnedMemoryPointer": ("ptr",),
    "cuda.function.Module": ("load", "get_function"),
    "cuda.function.Function": ("ptr",),
    "cuda.runtime.PointerAttributes": ("device",),
    "cuda.MemoryPool": ("free_bytes",),
    "ndarray": ("__dlpack__", "__dlpack_device__", "__cuda_array_interface__"),
}
# Parameters in the order in which they are passed.
SIGNATURES = {
    "cuda.runtime.memcpyAsync": "dst src size kind stream",
    "cuda.runtime.getDeviceProperties": "device",
    "cuda.runtime.setDevice": "device",
    "cuda.runtime.eventRecord": "event stream",
    "cuda.runtime.streamWaitEvent": "stream event flags",
    "cuda.driver.ctxSetCurrent": "ctx",
    "cuda.driver.funcSetAttribute": "f attribute value",
    "cuda.runtime.pointerGetAttributes": "ptr",
    "cuda.driver.launchKernel": "f grid_dim_x grid_dim_y grid_dim_z block_dim_x block_dim_y "
    "block_dim_z shared_mem_bytes stream kernel_params extra",
    "cuda.driver.launchCooperativeKernel": "f grid_dim_x grid_dim_y grid_dim_z block_dim_x "
    "block_dim_y block_dim_z shared_mem_bytes stream kernel_params",
    "cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor": "func blockSize dynamicSMemSize",
    "cuda.MemoryPointer.memset_async": "self value size stream",
    "cuda.function.Module.load": "self cubin",
    "cuda.function.Module.get_function": "self name",
    "cuda.alloc": "size",
    "cuda.alloc_pinned_memory": "size",
    "cuda.nvrtc.createProgram": "src name headers include_names",
    "cuda.nvrtc.compileProgram": "prog options",
    "cuda.nvrtc.getCUBIN": "prog",
    "cuda.nvrtc.getPTX": "prog",
    "cuda.nvrtc.getProgramLog": "prog",
    "cuda.nvrtc.destroyProgram": "prog",
}
KEYWORDS = {
    "cuda.Stream": "non_blocking",
    "cuda.Event": "disable_timing",
    "cuda.Graph.launch": "stream",
    "cuda.Stream.wait_event": "event",
    "cuda.Event.record": "stream",
    "empty": "dtype",
}


@pytest.fixture(scope="module")
def cupy() -> Any:
    return pytest.importorskip("cupy", reason=REASON)


def found(cupy: Any, path: str) -> Any:
    for name in path.split("."):
        cupy = getattr(cupy, name)
    return cupy


def _chain(node: ast.expr) -> str:
    """`self._cupy.cuda.alloc` as text; empty if it is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = _chain(node.value)
        return f"{start}.{node.attr}" if start else ""
    return ""


def names_in(path: str | None) -> set[str]:
    """The names that a file takes from CuPy."""
    text = Path(str(path)).read_text().replace("self._cupy.cuda.runtime", "cupy.cuda.runtime")
    chains = {_chain(n) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)}
    starts = {
        "self._cupy.": "",
        "cupy.": "",
        "runtime.": "cuda.runtime.",
        "driver.": "cuda.driver.",
        "self._cuda.": "cuda.",
        "cuda.": "cuda.",
        "binding.": "cuda.nvrtc.",
    }
    return {
        full + chain.removeprefix(start)
        for chain in chains
        for start, full in starts.items()
        if chain.startswith(start)
    }


def test_every_name_is_there(cupy: Any) -> None:
    names = set().union(*(names_in(m.__file__) for m in (device, cupy_probe, cupy_scope, nvrtc)))
    assert {"cuda.alloc", "cuda.runtime.memcpyAsync", "cuda.nvrtc.getCUBIN"} <= names
    for kind in ("HostToDevice", "DeviceToHost"):
        names.add(f"cuda.runtime.memcpy{kind}")
    for name in sorted(names):
        found(cupy, name)
    for owner, members in MEMBERS.items():
        for member in members:
            assert hasattr(found(cupy, owner), member), f"{owner} has no {member}"


def test_cupy_has_no_launch_attributes_and_no_loops_in_graphs(cupy: Any) -> None:
    """As docs/gpu.md says. The day this fails, GPUBP_OVERLAP and GPUBP_LOOP can have it, too."""
    driver, runtime = cupy.cuda.driver, cupy.cuda.runtime
    launches = {name for name in dir(driver) if name.startswith("launch")}
    assert launches == {"launchKernel", "launchCooperativeKernel"}
    graphs = {name for name in dir(runtime) if name.startswith("graph")}
    assert not any("onditional" in name or "AddNode" in name for name in graphs)
    assert not any("while" in name or "condition" in name for name in dir(cupy.cuda.Graph))


def _parameters(function: Any) -> list[str]:
    """From the first line of the documentation, where compiled functions have their signature."""
    inside = re.search(r"\((.*?)\)", (function.__doc__ or "").splitlines()[0])
    assert inside is not None, function
    return [part.split("=")[0].split()[-1] for part in inside.group(1).split(",")]


def test_parameters_are_in_this_order(cupy: Any) -> None:
    for name, wanted in SIGNATURES.items():
        assert _parameters(found(cupy, name)) == wanted.split(), name


def test_cupy_takes_the_keywords_that_are_given(cupy: Any) -> None:
    for name, keyword in KEYWORDS.items():
        function = found(cupy, name)
        try:
            known = list(inspect.signature(function).parameters)
        except ValueError:
            known = _parameters(function)
        assert keyword in known, f"{name} takes {known}"


def test_sources_compile_through_cupys_binding(
    cupy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    compiler = nvrtc.CupyNvrtc(cupy.cuda.nvrtc)
    try:
        compiler.version()
    except BackendError as err:
        assert "pip install" in str(err)
        pytest.skip(f"needs NVRTC: {err}")
    source = expand(begin_step([0, 0, 0, 0, 0]).source)
    for architecture in ("sm_75", "sm_80", "sm_90"):
        assert nvrtc.compiled(compiler, source, architecture)[:4] == b"\x7fELF"
    halved = 'extern "C" __global__ void halved(float* x) { *x = *x * 0.5f + x[1]; }'
    code = nvrtc.compiled(compiler, halved, "sm_999").decode()  # a GPU that is newer than NVRTC
    assert "fma.rn.f32" in code and ".ftz" not in code, "small numbers are kept"
    with pytest.raises(BackendError, match=r"did not compile(.|\n)*undefined"):
        nvrtc.compiled(compiler, "__global__ void f() { nowhere(); }", "sm_80")
