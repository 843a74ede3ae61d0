"""Ops on arrays on a GPU, at once: each op is a program of its own, kept for the next call.

Comes in: an op and its arguments, of which one at least is in a GPU's memory. Goes out: the result
there, in the order of the user's stream. Parameters are read where programs keep them, numbers go
along as inputs, and other host arrays are refused: nothing goes through the host's memory unseen.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.backends import gpu_backend
from gpubp.backends.base import Backend
from gpubp.core import OpSpec, at_once, bind
from gpubp.core.interop import TO_GPU, TO_HOST, device_number, on_device, require_signed
from gpubp.core.keys import exact
from gpubp.core.store import Slot
from gpubp.errors import DataError, GpubpError
from gpubp.ops.state import assign as assign_slot
from gpubp.runtime.function import CompiledFunction

MAX_KEPT = 256

_kept: OrderedDict[tuple[Any, ...], CompiledFunction] = OrderedDict()
_lock = threading.Lock()


def _unlock() -> None:
    """In a forked child, which may find the lock held by a thread that it has not."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def backend_of(array: Any) -> Backend:
    """The backend for the GPU that an array is on; one that does not say is on the first."""
    return gpu_backend(device_number(array) or 0)


def to_user_array(array: Any) -> Any:
    """An array on a GPU as one of the library that results come in, over the same memory.

    Raises:
        DataError: it cannot be shared, or torch keeps it with the sign changed.
    """
    backend = backend_of(array)
    require_signed(array, "an argument")
    try:
        return backend.to_user_array(array)
    except GpubpError:
        raise
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        raise DataError(f"an array on the GPU cannot be read through DLPack: {err}") from err


def put(array: Any, like: Any) -> Any:
    """A host array on the device that `like` is on."""
    return backend_of(like).to_user_array(array)


def apply(spec: OpSpec, args: Sequence[Any], attrs: dict[str, Any], like: Any = None) -> Any:
    """Run one op on the device.

    Args:
        spec: the op.
        args: arrays on the device, slots, and numbers as arrays of shape ().
        attrs: its attributes.
        like: an array that says which device, where no argument does.

    Raises:
        DataError: a host array among the arguments.
    """
    first = next((a for a in args if on_device(a)), like)
    _refuse_host_arrays(spec.name, args)
    backend = backend_of(first)
    slots = tuple(a if isinstance(a, Slot) else None for a in args)
    key = (id(backend), spec, exact(tuple(attrs.items())), tuple(map(id, slots)))
    program = _program(key, lambda: _one_op(spec, slots, attrs), backend)
    return program.on_device(*[a for a in args if not isinstance(a, Slot)])


def call(module: Any, args: Sequence[Any]) -> Any:
    """Call a module on arrays on the device: one program, which writes its state too.

    Args:
        module: traceable.
        args: arrays, of which one at least is on the device, and numbers.

    Raises:
        DataError: a host array among the arguments.
    """
    backend = backend_of(next(a for a in args if on_device(a)))
    _refuse_host_arrays(type(module).__name__, args)
    return _program((id(backend), id(module)), lambda: module, backend).on_device(*args)


def _refuse_host_arrays(name: str, args: Sequence[Any]) -> None:
    for value in args:
        if isinstance(value, np.ndarray) and value.ndim:
            raise DataError(
                f"{name}: arrays on a GPU and a NumPy array of shape {value.shape} do not mix. "
                f"Copy it to the GPU with {TO_GPU}, or the others to the host with {TO_HOST}."
            )


def _program(key: tuple[Any, ...], make: Callable[[], Any], backend: Backend) -> CompiledFunction:
    """The program of a function; its key names what the function keeps alive."""
    with _lock:
        program = _kept.get(key) or CompiledFunction(make(), backend)
        _kept[key] = program
        _kept.move_to_end(key)
        if len(_kept) > MAX_KEPT:
            _kept.popitem(last=False)
    return program


def _one_op(spec: OpSpec, slots: tuple[Slot | None, ...], attrs: dict[str, Any]) -> Any:
    def op(*arrays: Any) -> Any:
        rest = iter(arrays)
        return bind(spec, *[next(rest) if s is None else s for s in slots], **attrs)

    return op


def assign(slot: Slot, value: Any) -> None:
    """Give module state a new value that is on the device; the host's memory is not touched."""
    backend = backend_of(value)

    def write(new: Any) -> Any:
        assign_slot(slot, new)
        return ()

    _program((id(backend), "assign", id(slot)), lambda: write, backend).on_device(value)


at_once.apply, at_once.to_user_array, at_once.put = apply, to_user_array, put
at_once.assign, at_once.call = assign, call
