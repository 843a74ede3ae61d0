"""A GPU through cuda.core: context, streams, memory, copies, kernels, graphs.

Everything here runs on a GPU only; the rest of the backend is tested without one. That cuda.core
and its bindings have the names used here is tested where they are installed
(`tests/cuda/test_numba_cuda_names.py`). What users see of a driver (arrays, streams) is in
`numba_cuda.py`.

The backend works on a stream of its own that does not wait for the default stream, and copies
chunks on another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import SHARED_BYTES, Kernels, Memory
from gpubp.backends.cuda.drivers.core_calls import CoreContexts, CoreNvrtc, called
from gpubp.backends.cuda.drivers.numba_cuda_probe import import_numba_cuda
from gpubp.backends.cuda.drivers.queues import Queue, Start
from gpubp.backends.cuda.drivers.scope import Scope
from gpubp.backends.cuda.drivers.streams import StreamDriver
from gpubp.core.store import address_of
from gpubp.errors import BackendError


class _Loop:
    """See `queues.LoopCapture`: a graph of one node, whose body is recorded."""

    def __init__(self, stream: Any, timed: Any) -> None:
        self._whole = _Capture(stream)
        self._body: Any = None
        try:
            condition = self._whole.builder.create_condition(default_value=1)
            self._body = self._whole.builder.while_loop(condition)
            self._body.begin_building()
            self.handle = int(condition.handle)
            self.queue = _Stream(self._body.stream, timed)
        except BaseException:
            with suppress(Exception):
                self.cancel()
            raise

    def finish(self) -> Callable[[], None]:
        self._body.end_building()
        return self._whole.finish()

    def cancel(self) -> None:
        if self._body is not None:
            self._body.close()
        self._whole.cancel()


LOOPS_FROM = 12040  # version of NVIDIA's driver
OVERLAPS_FROM = 9  # compute capability


class _Block:
    """Device memory; given back in the order of its stream when the buffer is collected."""

    def __init__(self, buffer: Any, nbytes: int) -> None:
        self._buffer = buffer
        self.nbytes = nbytes

    @property
    def address(self) -> int:
        return int(self._buffer.handle)


@dataclass(frozen=True)
class _Kernel:
    """`found` keeps the code loaded; `handle` is the driver's."""

    found: Any
    handle: int


@dataclass(frozen=True)
class _Module:
    code: Any
    scope: Scope

    def get(self, name: str) -> Any:
        with self.scope:  # loads the code
            found = self.code.get_kernel(name)
            return _Kernel(found, int(found.handle))


@dataclass(frozen=True)
class _Point:
    """See `queues.Point`."""

    event: Any

    @property
    def done(self) -> bool:
        return bool(self.event.is_done)

    def wait(self) -> None:
        self.event.sync()

    def since(self, earlier: _Point) -> float:
        return float(self.event - earlier.event) / 1e3


@dataclass(frozen=True)
class _Stream:
    """See `queues.Queue`; `own` is cuda.core's, `timed` its options for events with times."""

    own: Any
    timed: Any

    @property
    def handle(self) -> int:
        return int(self.own.handle)

    def mark(self, timed: bool = False) -> _Point:
        return _Point(self.own.record(options=self.timed if timed else None))

    def wait(self, point: _Point) -> None:
        self.own.wait(point.event)

    def sync(self) -> None:
        self.own.sync()


class _Capture:
    """See `queues.Capture`."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.builder = stream, stream.create_graph_builder()
        self.builder.begin_building()

    def finish(self) -> Callable[[], None]:
        graph = self.builder.end_building().complete()
        self.builder.close()
        graph.upload(self._stream)
        return lambda: graph.launch(self._stream)

    def cancel(self) -> None:
        self.builder.close()


def early_config(cuda: Any, start: Start) -> Any:
    """Of a launch that may begin before the kernel before it in its stream has ended ("programmatic
    stream serialization"); recordings keep that as an edge, for which the kernel itself waits.

    Args:
        cuda: the driver's bindings.
        start: sizes, and the stream.
    """
    allowed, early = cuda.CUlaunchAttributeValue(), cuda.CUlaunchAttribute()
    allowed.programmaticStreamSerializationAllowed = 1
    ids = cuda.CUlaunchAttributeID
    early.id = ids.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    early.value = allowed
    config = cuda.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = start[:3]
    config.blockDimX, config.blockDimY, config.blockDimZ = start[3:6]
    config.sharedMemBytes, config.hStream = start.shared, start.stream
    config.attrs, config.numAttrs = [early], 1
    return config


class CoreDevice(StreamDriver):
    """See `base.Driver`, of which this is the part below the user's arrays.

    Args:
        device: number of the GPU.

    Raises:
        BackendError: there is no such GPU, or a piece of software is missing.
    """

    _stream: _Stream

    def __init__(self, device: int = 0) -> None:
        self._numba, found = import_numba_cuda()
        count = self._numba.count()
        if not 0 <= device < count:
            raise BackendError(f"cuda:{device} was asked for, but there are {count} GPUs.")
        self._core, self._cuda, self._utils = found.core, found.driver, found.utils
        compiler = CoreNvrtc(found)
        compiler.version()
        self._here = here = self._core.Device(device)
        self.number, self.name = device, str(here.name)
        scope = Scope(CoreContexts(found), device, self.name)
        with scope:
            here.set_current()  # the context that is current anyway; `here` wants to be told
            super().__init__(scope, self._made(here), self._made(here), compiler)
            self._default = here.default_stream
            self.processors = int(here.properties.multiprocessor_count)
        major, minor = here.compute_capability
        self.architecture = f"sm_{major}{minor}"
        self.overlaps = int(major) >= OVERLAPS_FROM
        self.loops = int(called(self._cuda.cuDriverGetVersion())) >= LOOPS_FROM
        self._ask_for_products()

    def _made(self, here: Any) -> _Stream:
        options = self._core.StreamOptions(nonblocking=True)
        timed = self._core.EventOptions(timing_enabled=True)
        return _Stream(here.create_stream(options=options), timed)

    def _side(self) -> _Stream:
        return self._made(self._here)

    def allocate(self, nbytes: int) -> Memory:
        with self._room(nbytes):
            buffer = self._here.allocate(max(nbytes, 1), stream=self._stream.own)
            buffer.fill(0, stream=self._stream.own)
        return _Block(buffer, nbytes)

    def free_bytes(self) -> int:
        with self._device:
            free = int(called(self._cuda.cuMemGetInfo())[0])
            pool = getattr(self._here.memory_resource, "attributes", None)
            if pool is None:  # a device without pools
                return free
            return free + int(pool.reserved_mem_current) - int(pool.used_mem_current)

    def _copy_up(self, target: int, array: NDArray[Any], stream: Queue) -> None:
        self._to_device(target, array, stream.handle)

    def _to_device(self, target: int, array: NDArray[Any], stream: int) -> None:
        if array.nbytes:
            called(self._cuda.cuMemcpyHtoDAsync(target, address_of(array), array.nbytes, stream))

    def _copy_down(self, source: int, array: NDArray[Any], stream: Queue) -> None:
        place = (address_of(array), source, array.nbytes, stream.handle)
        called(self._cuda.cuMemcpyDtoHAsync(*place))

    def _loaded(self, code: bytes) -> Kernels:
        make = self._core.ObjectCode.from_cubin
        if not code.startswith(b"\x7fELF"):
            make = self._core.ObjectCode.from_ptx
        return _Module(make(code, name="gpubp.cu"), self._device)

    def _launch(self, kernel: Any, start: Start) -> None:
        called(self._cuda.cuLaunchKernel(kernel.handle, *start, 0))

    def _launch_early(self, kernel: Any, start: Start) -> None:
        config = early_config(self._cuda, start)
        called(self._cuda.cuLaunchKernelEx(config, kernel.handle, start.arguments, 0))

    def _launch_together(self, kernel: Any, start: Start) -> None:
        called(self._cuda.cuLaunchCooperativeKernel(kernel.handle, *start))

    def _blocks_each(self, kernel: Any, threads: int, shared: int) -> int:
        ask = self._cuda.cuOccupancyMaxActiveBlocksPerMultiprocessor
        return int(called(ask(kernel.handle, threads, shared)))

    def allow_shared(self, kernel: Any, nbytes: int) -> None:
        if nbytes > SHARED_BYTES:
            attributes = self._cuda.CUfunction_attribute
            what = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            with self._device:
                called(self._cuda.cuKernelSetAttribute(what, nbytes, kernel.handle, self.number))

    def _capture(self) -> _Capture:
        return _Capture(self._stream.own)

    def _loop(self) -> _Loop:
        return _Loop(self._stream.own, self._stream.timed)

    def _pinned(self, nbytes: int) -> NDArray[np.uint8]:
        return self._numba.pinned(nbytes)
