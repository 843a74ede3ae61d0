"""CuPy as far as `gpubp.backends.cuda.drivers.cupy` uses it, over the tests' device.

So that the driver for real GPUs runs without one. What it cannot prove is that the real CuPy takes
these calls in this way: `test_cupy_names.py` compares names and signatures where CuPy is installed.
Streams are handles in a log; work is done when it is queued.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from captures import Captured, Recording
from shim_array import ShimArray, to_user_array
from shim_driver import ShimDriver, ShimKernel

from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.errors import BackendError


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class NVRTCError(RuntimeError):
    def __init__(self, status: int) -> None:
        super().__init__(f"NVRTC_ERROR ({status})")
        self.status = status


class Stream:
    """Also an external stream, and a context in which it is current."""

    handles = itertools.count(100)
    current: Stream
    device: ShimDriver
    calls: ClassVar[Counter[str]] = Counter()
    graphs: ClassVar[list[Recording]] = []

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        assert null or non_blocking, "the default stream would be waited for"
        self.captured = Captured()
        self.ptr = 0 if null else next(self.handles)
        self.waited: list[int] = []

    def __enter__(self) -> Stream:
        self._before, Stream.current = Stream.current, self
        return self

    def __exit__(self, *_: object) -> None:
        Stream.current = self._before

    def synchronize(self) -> None:
        assert self.captured.recording is None, "synchronised while captured"
        self.calls["sync"] += 1

    def wait_event(self, event: Event) -> None:
        self.waited.append(event.recorded_on)
        self.captured.wait(event.kept)

    def begin_capture(self) -> None:
        assert self.ptr != 0
        assert not gc.isenabled(), "what is freed while captured is freed by each replay"
        self.device._recorded = []
        self.captured.begin()

    def end_capture(self) -> Graph:
        self.device._recorded = None
        graph = Graph(self.captured.end())
        self.graphs.append(graph.recording)
        return graph


class Event:
    known: ClassVar[weakref.WeakValueDictionary[int, Event]] = weakref.WeakValueDictionary()

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        Contexts.require()
        self.recorded_on = -1
        self.kept: Any = (None, set())
        self.ptr = next(Stream.handles)
        self.known[self.ptr] = self

    def record(self, stream: Stream | None = None) -> None:
        assert stream is not None
        self.recorded_on, self.kept = stream.ptr, stream.captured.mark()

    def synchronize(self) -> None:
        assert self.recorded_on >= 0

    @property
    def done(self) -> bool:
        return True


class Graph:
    def __init__(self, recording: Recording) -> None:
        self.recording, self._order = recording, Random(0)

    def launch(self, stream: Stream) -> None:
        Contexts.require()
        assert stream.captured.recording is None
        Stream.calls["graph"] += 1
        self.recording.run(self._order)


class Contexts(threading.local):
    """The context that is current in each thread; one for each GPU, and 0 for none."""

    current = 0
    mine: Contexts
    made: set[int]

    @classmethod
    def reset(cls) -> None:
        """No context is made or current."""
        cls.mine, cls.made = cls(), set()

    @classmethod
    def of(cls, device: int) -> int:
        return 1000 + device

    @classmethod
    def require(cls) -> None:
        """Without a context CUDA's runtime would make one on GPU 0."""
        assert cls.mine.current, "no context is current"


class Pinned(bytearray):
    """Memory with an address and the buffer protocol."""

    @property
    def ptr(self) -> int:
        return ctypes.addressof((ctypes.c_char * len(self)).from_buffer(self))


class Nvrtc:
    """The compiler, whose machine code is the source."""

    NVRTCError = NVRTCError

    def __init__(self) -> None:
        self.compiled: list[tuple[str, ...]] = []
        self.unknown: tuple[str, ...] = ()

    def getVersion(self) -> tuple[int, int]:  # noqa: N802
        return 13, 0

    def createProgram(self, src: str, name: str, headers: tuple[()], include_names: tuple[()]):  # type: ignore[no-untyped-def]  # noqa: N802
        return src

    def compileProgram(self, prog: str, options: tuple[str, ...]) -> None:  # noqa: N802
        self.compiled.append(options)
        if options[-1] in self.unknown:
            raise NVRTCError(5)
        if "syntax error" in prog:
            raise NVRTCError(6)

    def getCUBIN(self, prog: str) -> bytes:  # noqa: N802
        return prog.encode()

    def getPTX(self, prog: str) -> bytes:  # noqa: N802
        return b"// PTX\n" + prog.encode()

    def getProgramLog(self, prog: str) -> str:  # noqa: N802
        return "line 1: what is this?"

    def destroyProgram(self, prog: str) -> None:  # noqa: N802
        pass


def note_wait(device: ShimDriver, stream: int, after: int) -> None:
    """In the device's log, as it would note it; the drivers' own streams are from 100 on."""
    if stream >= 100 > after:
        device.log.append(("wait_for", after))
    elif after >= 100 > stream:
        device.log.append(("make_wait", stream))


def fake_cupy(device: ShimDriver, count: int = 1) -> Any:
    """A module to stand for `cupy` in `sys.modules`.

    Args:
        device: does the work.
        count: of GPUs.
    """
    streams: dict[int, Stream] = {}
    kernels: dict[int, ShimKernel] = {}
    Stream.current, Stream.calls, Stream.graphs = Stream(null=True), Counter(), []
    streams[0] = Stream.current

    def set_device(number: int) -> None:
        Contexts.mine.current = Contexts.of(number)
        Contexts.made.add(number)

    def set_context(context: int) -> None:
        assert context == 0 or context - 1000 in Contexts.made
        Contexts.mine.current = context

    def event_record(event: int, stream: int) -> None:
        Event.known[event].recorded_on = 0 if stream == 1 else stream

    def wait_event(stream: int, event: int, flags: int = 0) -> None:
        place = 0 if stream == 1 else stream
        if place not in streams:  # another library's
            make_stream(non_blocking=True)
            streams[place] = streams.pop(max(streams))
        streams[place].waited.append(Event.known[event].recorded_on)
        note_wait(device, stream, Event.known[event].recorded_on or 1)

    def stream_of(handle: int) -> Stream | None:
        return streams.get(handle)

    def make_stream(**options: Any) -> Stream:
        made = Stream(**options)
        made.device = device
        streams[made.ptr] = made
        return made

    def do(handle: int, work: Callable[[], Any]) -> None:
        stream = stream_of(handle)
        if stream is not None:
            stream.captured.do(work)
        else:
            work()

    def alloc(nbytes: int) -> Any:
        try:
            memory = device.allocate(nbytes)
        except DeviceMemoryError as err:
            raise OutOfMemoryError(str(err)) from err

        def memset_async(value: int, size: int, stream: Stream) -> None:
            ctypes.memset(memory.address, value, size)

        return SimpleNamespace(ptr=memory.address, memory=memory, memset_async=memset_async)

    def memcpy_async(dst: int, src: int, size: int, kind: int, stream: int) -> None:
        assert kind in (1, 2)
        Stream.calls["upload" if kind == 1 else "download"] += 1
        do(stream, lambda: ctypes.memmove(dst, src, size))

    def launch(
        f: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
        shared: int, stream: int, params: int, extra: int,
    ) -> None:  # fmt: skip
        Contexts.require()
        Stream.calls["launch"] += 1
        kernel = kernels[f]
        place = ctypes.c_void_p.from_address(params).value
        assert place is not None
        taken = ctypes.string_at(place, kernel.entry.params_size)
        do(stream, lambda: device.launch(kernel, (gx, gy, gz), (bx, by, bz), shared, taken))

    def launch_together(
        f: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int,
        shared: int, stream: int, params: int,
    ) -> None:  # fmt: skip
        Contexts.require()
        Stream.calls["together"] += 1
        kernel = kernels[f]
        place = ctypes.c_void_p.from_address(params).value
        assert place is not None
        taken = ctypes.string_at(place, kernel.entry.params_size)
        grid, block = (gx, gy, gz), (bx, by, bz)
        do(stream, lambda: device.launch_together(kernel, grid, block, shared, taken))

    def occupancy(func: int, size: int, shared: int) -> int:
        Contexts.require()
        return device.blocks_together(kernels[func], size, shared) // device.processors

    def set_attribute(f: int, attribute: int, value: int) -> None:
        assert attribute == 8
        try:
            device.allow_shared(kernels[f], value)
        except BackendError as err:
            raise CUDADriverError(str(err)) from err

    class Module:
        def load(self, code: bytes) -> None:
            self._kernels = device.compile(code.decode())

        def get_function(self, name: str) -> Any:
            kernel = self._kernels.get(name)
            kernels[id(kernel)] = kernel
            return SimpleNamespace(ptr=id(kernel))

    def empty(shape: Any, dtype: Any) -> ShimArray:
        try:
            return device.empty(shape, dtype)
        except DeviceMemoryError as err:
            raise OutOfMemoryError(str(err)) from err

    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: count,
        setDevice=set_device,
        eventRecord=event_record,
        streamWaitEvent=wait_event,
        getDeviceProperties=lambda number: {
            "name": b"a fake", "major": 8, "minor": 0, "multiProcessorCount": 4
        },
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        memGetInfo=lambda: (device.free_bytes(), device.memory),
        memcpyAsync=memcpy_async,
        memcpyHostToDevice=1,
        memcpyDeviceToHost=2,
        pointerGetAttributes=lambda address: SimpleNamespace(device=0),
    )  # fmt: skip
    cupy = ModuleType("cupy")
    cupy.__spec__ = ModuleSpec("cupy", None)
    members: dict[str, Any] = {
        "__version__": "0 (fake)",
        "ndarray": ShimArray,
        "empty": empty,
        "asarray": lambda value: to_user_array(device, np.asarray(value)),
        "from_dlpack": lambda value: to_user_array(device, value),
        "get_default_memory_pool": lambda: SimpleNamespace(free_bytes=lambda: 0),
        "cuda": SimpleNamespace(
            alloc=alloc,
            alloc_pinned_memory=Pinned,
            Stream=make_stream,
            Event=Event,
            get_elapsed_time=lambda start, end: 1.5,
            get_current_stream=lambda: Stream.current,
            runtime=runtime,
            driver=SimpleNamespace(
                launchKernel=launch,
                launchCooperativeKernel=launch_together,
                occupancyMaxActiveBlocksPerMultiprocessor=occupancy,
                CUDADriverError=CUDADriverError,
                CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
                funcSetAttribute=set_attribute,
                ctxGetCurrent=lambda: Contexts.mine.current,
                ctxSetCurrent=set_context,
            ),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            function=SimpleNamespace(Module=Module),
            nvrtc=Nvrtc(),
        ),
        "streams": streams,
        "calls": Stream.calls,
        "graphs": Stream.graphs,
    }
    cupy.__dict__.update(members)
    return cupy
