"""What the driver over cuda.core and numba-cuda takes from them is there, in the packages that are
installed.

No GPU is needed: names are looked up, signatures are read, sources are compiled by NVRTC through
cuda.core. Where there is no driver of NVIDIA's, the bindings refuse a call only after they have
converted its arguments: so the types that are passed are tried, too.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import importlib.util
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import fake_cuda_core
import fake_numba_cuda
import numpy as np
import pytest

from gpubp.backends.cuda import NumbaCudaBackend
from gpubp.backends.cuda.drivers import bare_nvrtc as direct
from gpubp.backends.cuda.drivers import core_calls, core_device, numba_arrays, numba_cuda, nvrtc
from gpubp.backends.cuda.drivers import numba_cuda_probe as probes
from gpubp.backends.cuda.drivers.queues import Start
from gpubp.backends.cuda.sources import begin_step, expand
from gpubp.errors import BackendError


def _missing() -> str:
    for package in ("numba_cuda", "cuda.core", "cuda.bindings.nvrtc"):
        try:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError
        except ModuleNotFoundError:
            return f"needs {package}: pip install 'gpubp[cuda-check]'"
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())

IDS = "cuda.bindings.driver:CUlaunchAttributeID"
CORE, DRIVER, NUMBA = "cuda.core", "cuda.bindings.driver", "numba.cuda"
# File -> how its modules are called there -> what they are.
CALLED = {
    core_calls: {
        "self._core.": CORE, "self._cuda.": DRIVER, "self._nvrtc.": "cuda.bindings.nvrtc"
    },
    core_device: {"self._core.": CORE, "self._cuda.": DRIVER, "cuda.": DRIVER, "ids.": IDS},
    numba_cuda: {"self._core.": CORE, "self._cuda.": DRIVER, "self._utils.": "cuda.core.utils"},
    probes: {"found.core.": CORE, "found.driver.": DRIVER},
    numba_arrays: {"self._cuda.": NUMBA},
}  # fmt: skip
# What is called on objects, by their class.
MEMBERS = {
    "cuda.core:Device": "name properties compute_capability default_stream memory_resource "
    "set_current create_stream allocate",
    "cuda.core._device:DeviceProperties": "multiprocessor_count",
    "cuda.core:Stream": "handle record wait sync create_graph_builder from_handle",
    "cuda.core:Event": "sync is_done __sub__",
    "cuda.core:Buffer": "handle fill",
    "cuda.core:ObjectCode": "code from_cubin from_ptx get_kernel",
    "cuda.core:Kernel": "handle",
    "cuda.core.graph:GraphBuilder": "begin_building end_building complete close create_condition "
    "while_loop stream",
    "cuda.core.graph:GraphCondition": "handle",
    "cuda.core.graph:Graph": "upload launch",
    "cuda.core:DeviceMemoryResource": "attributes",
    "cuda.core._memory._memory_pool:_MemPoolAttributes": "reserved_mem_current used_mem_current",
    "cuda.core.utils:StridedMemoryView": "from_dlpack ptr shape strides dtype",
    "numba.cuda.cudadrv.devicearray:DeviceNDArray": "__cuda_array_interface__ __cuda_ndarray__ "
    "copy_to_host __getitem__",
    "numba.cuda.dispatcher:CUDADispatcher": "configure __getitem__",
}
# The made-up class, and the real one whose methods must take the same arguments.
LIKE = {
    "Stream": "cuda.core:Stream",
    "Event": "cuda.core:Event",
    "GraphBuilder": "cuda.core.graph:GraphBuilder",
    "Graph": "cuda.core.graph:Graph",
    "StreamOptions": "cuda.core:StreamOptions",
    "EventOptions": "cuda.core:EventOptions",
    "ProgramOptions": "cuda.core:ProgramOptions",
    "StridedMemoryView": "cuda.core.utils:StridedMemoryView",
}


def real(path: str) -> Any:
    """`module:name`, from the packages."""
    module, name = path.split(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _chain(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = _chain(node.value)
        return f"{start}.{node.attr}" if start else ""
    return ""


def names_in(file: Any, called: dict[str, str]) -> set[str]:
    """The names that a file takes from the packages, as `module:name`."""
    tree = ast.parse(Path(str(file.__file__)).read_text())
    chains = {_chain(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return {
        f"{module}{'.' if ':' in module else ':'}{chain.removeprefix(start)}"
        for chain in chains
        for start, module in called.items()
        if chain.startswith(start)
    }


def test_every_name_is_there() -> None:
    names = set().union(*(names_in(*one) for one in CALLED.items()))
    wanted = ("cuda.core:Program", "cuda.bindings.driver:cuLaunchKernel", "numba.cuda:gpus")
    assert names.issuperset(wanted) and len(names) > 20
    for name in sorted(names):
        real(name)
    for owner, members in MEMBERS.items():
        for member in members.split():
            assert hasattr(real(owner), member), f"{owner} has no {member}"


def _parameters(function: Any) -> list[str]:
    return [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]


def test_the_made_up_classes_take_what_the_real_ones_take() -> None:
    compared = 0
    for name, path in LIKE.items():
        fake, cls = getattr(fake_cuda_core, name), real(path)
        if hasattr(fake, "__dataclass_fields__"):
            known = {f.name: f.default for f in fields(cls)}
            assert {f.name: f.default for f in fields(fake)}.items() <= known.items(), name
            compared += 1
            continue
        for member in vars(fake):
            if callable(getattr(fake, member)) and not member.startswith("_") and member != "do":
                taken = _parameters(getattr(fake, member))
                there = _parameters(getattr(cls, member))
                assert taken == there[: len(taken)], (name, member, there)
                compared += 1
    assert compared > 12


def test_the_made_up_functions_take_what_the_real_ones_take() -> None:
    device: Any = object()
    made = fake_cuda_core.fake_modules(device)
    for module, names in (
        (DRIVER, "cuCtxGetCurrent cuCtxSetCurrent cuMemGetInfo cuDriverGetVersion"),
        (DRIVER, "cuMemcpyHtoDAsync cuMemcpyDtoHAsync cuLaunchKernel cuKernelSetAttribute"),
        (DRIVER, "cuPointerGetAttribute cuLaunchCooperativeKernel"),
        (DRIVER, "cuOccupancyMaxActiveBlocksPerMultiprocessor"),
        (NUMBA, "from_cuda_array_interface as_cuda_array pinned_array external_stream"),
        (NUMBA, "cuda_error is_available"),
    ):
        for name in names.split():
            fake, found = getattr(made[module], name), real(f"{module}:{name}")
            assert len(_parameters(fake)) <= len(_parameters(found)), name
            if module == NUMBA and name != "external_stream":
                taken = _parameters(fake)
                assert taken == _parameters(found)[: len(taken)], name
    core = made[CORE]
    for path in ("Device.set_current", "Device.create_stream", "Device.allocate",
                 "ObjectCode.from_cubin", "ObjectCode.from_ptx", "ObjectCode.get_kernel",
                 "Program.compile", "Buffer.fill"):  # fmt: skip
        owner, member = path.split(".")
        taken = _parameters(getattr(getattr(core, owner), member))
        assert taken == _parameters(real(f"cuda.core:{path}"))[: len(taken)], path


def _driver_is_there() -> bool:
    return bool(real("numba.cuda:is_available")())


def test_the_bindings_take_plain_integers() -> None:
    """Streams, kernels, contexts and addresses as numbers; kernel parameters as an address."""
    if _driver_is_there():
        pytest.skip("there is a driver, which would be called with these addresses")
    driver = importlib.import_module(DRIVER)
    shared = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    ordinal = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    pointer = ctypes.addressof((ctypes.c_void_p * 1)(8))
    early = core_device.early_config(driver, Start(2, 3, 4, 32, 1, 1, 5, 16, pointer))
    assert (early.gridDimX, early.gridDimY, early.gridDimZ) == (2, 3, 4)
    assert (early.blockDimX, early.sharedMemBytes, early.numAttrs) == (32, 5, 1)
    assert int(early.hStream) == 16
    (attribute,) = early.attrs
    assert attribute.value.programmaticStreamSerializationAllowed == 1
    calls = {
        "cuLaunchKernel": (8, 1, 1, 1, 32, 1, 1, 0, 16, pointer, 0),
        "cuLaunchKernelEx": (early, 8, pointer, 0),
        "cuLaunchCooperativeKernel": (8, 1, 1, 1, 32, 1, 1, 0, 16, pointer),
        "cuOccupancyMaxActiveBlocksPerMultiprocessor": (8, 256, 1024),
        "cuCtxSetCurrent": (0,),
        "cuMemcpyHtoDAsync": (8, 8, 8, 16),
        "cuMemcpyDtoHAsync": (8, 8, 8, 16),
        "cuKernelSetAttribute": (shared, 1 << 16, 8, 0),
        "cuPointerGetAttribute": (ordinal, 8),
    }
    for name, arguments in calls.items():
        with pytest.raises(RuntimeError, match=r"libcuda|driver library"):
            getattr(driver, name)(*arguments)
    with pytest.raises(TypeError):
        driver.cuLaunchKernel("8", *calls["cuLaunchKernel"][1:])


def test_cuda_core_launches_no_kernel_that_takes_a_struct() -> None:
    """So launches go through the bindings. The day this fails, they need not."""
    holder = real("cuda.core._kernel_arg_handler:ParamHolder")

    class Params(ctypes.Structure):
        _fields_ = (("content", ctypes.c_ubyte * 40),)

    assert holder([np.float32(1)]).ptr
    for struct in (Params(), np.zeros((), np.dtype((np.void, 40)))[()]):
        with pytest.raises(TypeError, match="unsupported type"):
            holder([struct])


def test_the_default_streams_have_these_handles() -> None:
    core = importlib.import_module(CORE)
    assert int(core.LEGACY_DEFAULT_STREAM.handle) == 1
    assert int(core.PER_THREAD_DEFAULT_STREAM.handle) == 2
    assert int(core.Stream.from_handle(1).handle) == 1


def test_errors_have_these_names() -> None:
    for path in ("cuda.core._utils.cuda_utils:CUDAError", "numba.cuda.cudadrv.driver:CudaAPIError"):
        assert real(path).__name__ in core_calls._ERRORS
    status = real("cuda.bindings.driver:CUresult")
    assert int(status.CUDA_SUCCESS) == 0 and status.CUDA_ERROR_OUT_OF_MEMORY.name.endswith(
        "OUT_OF_MEMORY"
    )
    for status in fake_cuda_core.Status:
        assert int(getattr(real("cuda.bindings.driver:CUresult"), status.name)) == status


def test_arrays_by_dlpack_are_described_alike() -> None:
    view = real("cuda.core.utils:StridedMemoryView")
    for x in (np.zeros((2, 3), np.float32), np.zeros((2, 3)).T, np.zeros((), np.int64)):
        found = view.from_dlpack(x, stream_ptr=-1)
        fake = fake_cuda_core.StridedMemoryView(x, x)
        assert found.ptr == fake.ptr and tuple(found.shape) == fake.shape
        assert tuple(found.strides or ()) == fake.strides and np.dtype(found.dtype) == fake.dtype


def test_numba_says_what_is_missing() -> None:
    if _driver_is_there():
        pytest.skip("there is a driver")
    numba = numba_arrays.NumbaCuda()
    assert "driver" in numba.why_not()
    probe = NumbaCudaBackend.probe()
    assert not probe.available
    assert "finds no driver" in probe.reason and "gpubp[numba-cuda13]" in probe.reason
    with pytest.raises(BackendError, match="finds no driver"):
        NumbaCudaBackend()


def test_a_kernel_of_numba_is_known_as_one() -> None:
    cuda = importlib.import_module(NUMBA)

    @cuda.jit
    def twice(x: Any, y: Any) -> None:
        i = cuda.grid(1)
        if i < y.size:
            y[i] = 2 * x[i]

    made = fake_numba_cuda.Kernel(lambda x, y: None)
    for kernel in (twice, made):
        assert callable(kernel) and callable(kernel.configure) and callable(kernel.py_func)
    taken = _parameters(made.configure)
    assert taken == _parameters(twice.configure)[: len(taken)]


@pytest.fixture(scope="module")
def compiler() -> core_calls.CoreNvrtc:
    found = core_calls.CoreNvrtc(core_calls.modules())
    try:
        found.version()
    except BackendError as error:
        assert "pip install" in str(error)
        pytest.skip(f"needs NVRTC: {error}")
    return found


HALVED = 'extern "C" __global__ void halved(float* x) { *x = *x * 0.5f + x[1]; }'


def test_sources_compile_to_the_code_that_the_options_say(compiler: core_calls.CoreNvrtc) -> None:
    """Byte for byte what NVRTC makes of them with `OPTIONS`, as CuPy's binding passes them."""
    begin = expand(begin_step([0, 0, 0, 0, 0]).source)
    for source in (begin, HALVED):
        for architecture in ("sm_75", "sm_80", "sm_90"):
            found = compiler.compile(source, architecture)
            assert found[:4] == b"\x7fELF" and found == _directly(source, architecture)


def _directly(source: str, architecture: str) -> bytes:
    how = (*nvrtc.OPTIONS, f"--gpu-architecture={architecture}")
    return direct.built(source, how).code


def test_what_does_not_compile_is_told(compiler: core_calls.CoreNvrtc) -> None:
    with pytest.raises(BackendError, match=r"did not compile(.|\n)*undefined"):
        compiler.compile("__global__ void f() { nowhere(); }", "sm_80")
    with pytest.raises(nvrtc.UnknownTargetError):
        compiler.compile(HALVED, "sm_999")
