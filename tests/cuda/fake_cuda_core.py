"""cuda.core and its bindings as far as `gpubp.backends.cuda.drivers` uses them, over the tests'
device; with Numba's part in `fake_numba_cuda.py`.

So that the second driver for real GPUs runs without one. That the real packages take these calls in
this way is compared where they are installed (`test_numba_cuda_names.py`). Streams are handles in a
log; work is done when it is queued.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from captures import Captured, Recording
from fake_cupy import Contexts, note_wait
from fake_numba_cuda import fake_numba
from shim_array import Capsule
from shim_driver import ShimDriver

from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.errors import BackendError


class CUDAError(Exception):
    pass


class NVRTCError(CUDAError):
    pass


class Status(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_ILLEGAL_ADDRESS = 700


OK = (Status.CUDA_SUCCESS,)


@dataclass
class StreamOptions:
    nonblocking: Any = True
    priority: int | None = None


@dataclass
class EventOptions:
    timing_enabled: bool | None = False
    blocking_sync: bool | None = False
    ipc_enabled: bool | None = False


@dataclass
class ProgramOptions:
    name: str | None = "default_program"
    arch: str | None = None
    std: str | None = None
    device_as_default_execution_space: bool | None = None


class Event:
    def __init__(self, stream: Stream, timed: bool) -> None:
        self.recorded_on, self._timed = int(stream.handle), timed
        self.kept = stream.captured.mark()

    def sync(self) -> None:
        Contexts.require()

    @property
    def is_done(self) -> bool:
        return True

    def __sub__(self, other: Event) -> float:
        assert self._timed and other._timed
        return 1.5


class Stream:
    known: ClassVar[dict[int, Stream]]
    calls: ClassVar[Counter[str]]
    graphs: ClassVar[list[Recording]]
    device: ClassVar[ShimDriver]

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.captured = Captured()
        self.waited: list[int] = []
        self.known[handle] = self

    @classmethod
    def from_handle(cls, handle: int) -> Stream:
        return cls.known.get(handle) or cls(handle)  # or another library's

    def do(self, work: Callable[[], Any]) -> None:
        self.captured.do(work)

    def sync(self) -> None:
        Contexts.require()
        assert self.captured.recording is None, "synchronised while captured"
        self.calls["sync"] += 1

    def record(self, event: Event | None = None, options: EventOptions | None = None) -> Event:
        Contexts.require()
        return Event(self, bool(options and options.timing_enabled))

    def wait(self, event_or_stream: Event) -> None:
        Contexts.require()
        self.waited.append(event_or_stream.recorded_on)
        self.captured.wait(event_or_stream.kept)
        note_wait(self.device, self.handle, event_or_stream.recorded_on)

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)


class Condition:
    """Its handle is the address of a word, as kernels built with g++ take it."""

    def __init__(self, device: ShimDriver) -> None:
        self.word = ctypes.c_uint(0)
        self.handle = ctypes.addressof(self.word)


class GraphBuilder:
    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.recording: Recording | None = None
        self.inside, self.order = False, Random(1)

    def begin_building(self, mode: str | None = "relaxed") -> GraphBuilder:
        assert self.stream.handle > 2 and self.stream.captured.recording is None
        assert not gc.isenabled(), "what is freed while captured is freed by each replay"
        self.stream.device._recorded = []
        self.stream.captured.begin()
        return self

    def end_building(self) -> GraphBuilder:
        if not self.inside:
            self.stream.device._recorded = None
        self.recording = self.stream.captured.end()
        return self

    def create_condition(self, default_value: int | None = None) -> Condition:
        assert self.stream.captured.recording is not None and default_value == 1
        return Condition(self.stream.device)

    def while_loop(self, condition: Condition) -> GraphBuilder:
        """A round is recorded on a stream of its own; the outer graph has one node."""
        body = GraphBuilder(type(self.stream)(1000 + len(self.stream.known)))
        body.inside = True

        def loop() -> None:
            assert body.recording is not None
            condition.word.value = 1
            while condition.word.value:
                self.stream.calls["round"] += 1
                body.recording.run(body.order)

        self.stream.do(loop)
        return body

    def complete(self, options: Any = None) -> Graph:
        assert self.recording is not None
        self.stream.graphs.append(self.recording)
        return Graph(self.recording)

    def close(self) -> None:
        self.stream.device._recorded = None
        if self.stream.captured.recording is not None:
            self.stream.captured.end()


class Graph:
    def __init__(self, recording: Recording) -> None:
        self.recording, self._order = recording, Random(0)

    def upload(self, stream: Stream) -> None:
        assert stream.captured.recording is None

    def launch(self, stream: Stream) -> None:
        Contexts.require()
        assert stream.captured.recording is None
        stream.calls["graph"] += 1
        self.recording.run(self._order)


def fake_modules(device: ShimDriver, count: int = 1, strict: bool = True) -> dict[str, ModuleType]:
    """For `sys.modules`.

    Args:
        device: does the work.
        count: of GPUs.
        strict: user arrays have nothing that Numba's have not.
    """
    streams: Any = type("Stream", (Stream,), _members(device))
    default, per_thread = streams(1), streams(2)
    kernels: dict[int, Any] = {}
    found = fake_numba(device, count, strict, streams.from_handle)
    core = ModuleType("cuda.core")
    core.__dict__.update(
        __version__="0 (fake)",
        Stream=streams,
        StreamOptions=StreamOptions,
        EventOptions=EventOptions,
        ProgramOptions=ProgramOptions,
        LEGACY_DEFAULT_STREAM=default,
        PER_THREAD_DEFAULT_STREAM=per_thread,
        **_device(device, streams),
        **_code(device, kernels),
    )
    utils = ModuleType("cuda.core.utils")
    utils.__dict__["StridedMemoryView"] = StridedMemoryView
    driver = ModuleType("cuda.bindings.driver")
    driver.__dict__.update(_driver(device, kernels, streams))
    nvrtc = ModuleType("cuda.bindings.nvrtc")
    nvrtc.__dict__["nvrtcVersion"] = lambda: (*OK, 13, 0)
    return {
        **found,
        "cuda.core": core,
        "cuda.core.utils": utils,
        "cuda.bindings.driver": driver,
        "cuda.bindings.nvrtc": nvrtc,
    }


def _members(device: ShimDriver) -> dict[str, Any]:
    return {"known": {}, "calls": Counter(), "graphs": [], "device": device}


class StridedMemoryView:
    """Another library's array on the device."""

    def __init__(self, view: Any, owner: Any) -> None:
        self.exporting_obj, self.dtype, self.shape = owner, view.dtype, view.shape
        self.ptr, self._view = view.ctypes.data, view
        self.strides = tuple(s // view.itemsize for s in view.strides)

    @classmethod
    def from_dlpack(cls, obj: Any, stream_ptr: int | None = None) -> StridedMemoryView:
        return cls(np.from_dlpack(Capsule(obj.__dlpack__(stream=stream_ptr))), obj)


def _device(device: ShimDriver, streams: type[Stream]) -> dict[str, Any]:
    class Buffer:
        def __init__(self, size: int) -> None:
            try:
                self._memory = device.allocate(size)
            except DeviceMemoryError as err:
                raise CUDAError(f"CUDA_ERROR_OUT_OF_MEMORY: {err}") from err
            self.handle, self.size = self._memory.address, size

        def fill(self, value: int, *, stream: Stream) -> None:
            stream.do(lambda: ctypes.memset(self.handle, value, self.size))

    class Device:
        threads = threading.local()
        name, compute_capability = "a fake", (8, 0)
        properties = SimpleNamespace(multiprocessor_count=4)
        default_stream = streams.known[1]
        memory_resource = SimpleNamespace(
            attributes=SimpleNamespace(reserved_mem_current=96, used_mem_current=32)
        )

        def __new__(cls, device_id: int | None = None) -> Device:
            assert device_id is not None
            mine = cls.threads.__dict__.setdefault("devices", {})
            if device_id not in mine:
                mine[device_id] = made = object.__new__(cls)
                made.device_id, made.ready = device_id, False
            found: Device = mine[device_id]
            return found

        def set_current(self) -> None:
            Contexts.mine.current = Contexts.of(self.device_id)
            Contexts.made.add(self.device_id)
            self.ready = True

        def create_stream(self, obj: Any = None, options: StreamOptions | None = None) -> Stream:
            assert self.ready and obj is None
            assert options is not None and options.nonblocking
            return streams(100 + len(streams.known))

        def allocate(self, size: int, *, stream: Stream) -> Buffer:
            assert self.ready and stream.captured.recording is None and size > 0
            return Buffer(size)

    return {"Device": Device, "Buffer": Buffer}


def _code(device: ShimDriver, kernels: dict[int, Any]) -> dict[str, Any]:
    """The compiler, whose machine code is the source behind the first bytes of such a file."""
    elf = b"\x7fELF"

    class ObjectCode:
        def __init__(self, code: bytes) -> None:
            self.code = code
            self._kernels: Any = None

        @staticmethod
        def from_cubin(module: bytes, *, name: str = "") -> ObjectCode:
            assert module.startswith(elf)
            return ObjectCode(module)

        @staticmethod
        def from_ptx(module: bytes, *, name: str = "") -> ObjectCode:
            assert not module.startswith(elf)
            return ObjectCode(module)

        def get_kernel(self, name: str) -> Any:
            Contexts.require()
            if self._kernels is None:
                self._kernels = device.compile(self.code.removeprefix(elf).decode())
            kernel = self._kernels.get(name)
            kernels[id(kernel)] = kernel
            return SimpleNamespace(handle=id(kernel))

    class Program:
        compiled: ClassVar[list[ProgramOptions]] = []
        unknown: ClassVar[tuple[str, ...]] = ()

        def __init__(self, code: str, code_type: str, options: ProgramOptions) -> None:
            assert code_type == "c++"
            self._code, self._options = code, options

        def compile(self, target_type: str) -> ObjectCode:
            self.compiled.append(self._options)
            if self._options.arch in self.unknown:
                raise NVRTCError("5: NVRTC_ERROR_INVALID_OPTION, compilation log:")
            if "syntax error" in self._code:
                raise NVRTCError("6: NVRTC_ERROR_COMPILATION, log:\nwhat is this?\n\0")
            start = {"cubin": elf, "ptx": b"// PTX\n"}[target_type]
            return ObjectCode(start + self._code.encode())

    return {"ObjectCode": ObjectCode, "Program": Program}


def _driver(device: ShimDriver, kernels: dict[int, Any], streams: type[Stream]) -> dict[str, Any]:
    def set_context(context: int) -> tuple[Status]:
        assert context == 0 or context - 1000 in Contexts.made
        Contexts.mine.current = context
        return OK

    def copy(kind: str) -> Callable[..., tuple[Status]]:
        def run(to: int, start: int, size: int, stream: int) -> tuple[Status]:
            Contexts.require()
            streams.calls[kind] += 1
            streams.known[stream].do(lambda: ctypes.memmove(to, start, size))
            return OK

        return run

    def launch(
        f: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
        shared: int, stream: int, params: int, extra: int,
    ) -> tuple[Status]:  # fmt: skip
        Contexts.require()
        streams.calls["launch"] += 1
        kernel = kernels[f]
        place = ctypes.c_void_p.from_address(params).value
        assert place is not None and extra == 0
        taken = ctypes.string_at(place, kernel.entry.params_size)
        grid, block = (gx, gy, gz), (bx, by, bz)
        streams.known[stream].do(lambda: device.launch(kernel, grid, block, shared, taken))
        return OK

    def launch_together(
        f: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
        shared: int, stream: int, params: int,
    ) -> tuple[Status]:  # fmt: skip
        Contexts.require()
        streams.calls["together"] += 1
        kernel = kernels[f]
        place = ctypes.c_void_p.from_address(params).value
        assert place is not None
        taken = ctypes.string_at(place, kernel.entry.params_size)
        grid, block = (gx, gy, gz), (bx, by, bz)
        streams.known[stream].do(lambda: device.launch_together(kernel, grid, block, shared, taken))
        return OK

    def launch_ex(config: SimpleNamespace, f: int, params: int, extra: int) -> tuple[Status]:
        (attribute,) = config.attrs
        assert config.numAttrs == 1 and attribute.id == "early"
        assert attribute.value.programmaticStreamSerializationAllowed == 1
        assert streams.known[config.hStream].captured.ends, "nothing before it"
        streams.calls["early"] += 1
        grid = (config.gridDimX, config.gridDimY, config.gridDimZ)
        block = (config.blockDimX, config.blockDimY, config.blockDimZ)
        return launch(f, *grid, *block, config.sharedMemBytes, config.hStream, params, extra)

    def occupancy(func: int, size: int, shared: int) -> tuple[Status, int]:
        Contexts.require()
        return (*OK, device.blocks_together(kernels[func], size, shared) // device.processors)

    def set_attribute(attribute: str, value: int, kernel: int, dev: int) -> tuple[Status]:
        assert attribute == "shared" and dev == device.number
        try:
            device.allow_shared(kernels[kernel], value)
        except BackendError:
            return (Status.CUDA_ERROR_INVALID_VALUE,)
        return OK

    programmatic = "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION"
    shared = "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"
    return {
        "cuCtxGetCurrent": lambda: (*OK, Contexts.mine.current),
        "cuCtxSetCurrent": set_context,
        "cuMemcpyHtoDAsync": copy("upload"),
        "cuMemcpyDtoHAsync": copy("download"),
        "cuLaunchKernel": launch,
        "cuLaunchKernelEx": launch_ex,
        "CUlaunchConfig": SimpleNamespace,
        "CUlaunchAttribute": SimpleNamespace,
        "CUlaunchAttributeValue": SimpleNamespace,
        "CUlaunchAttributeID": SimpleNamespace(**{programmatic: "early"}),
        "cuLaunchCooperativeKernel": launch_together,
        "cuOccupancyMaxActiveBlocksPerMultiprocessor": occupancy,
        "cuKernelSetAttribute": set_attribute,
        "cuMemGetInfo": lambda: (*OK, device.free_bytes(), device.memory),
        "cuPointerGetAttribute": lambda attribute, ptr: (*OK, device.number),
        "cuDriverGetVersion": lambda: (*OK, 13000),
        "CUfunction_attribute": SimpleNamespace(**{shared: "shared"}),
        "CUpointer_attribute": SimpleNamespace(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL="device"),
    }
