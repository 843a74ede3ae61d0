"""Backends: found by name, chosen by argument, then environment, then availability."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from gpubp.errors import BackendError, unknown_name

if TYPE_CHECKING:
    from gpubp.backends.base import Backend, Feed, Probe

# In order of preference: name, module, class, device.
_REGISTRY = (
    ("numba", "gpubp.backends.numba_cpu", "NumbaBackend", "cpu"),
    ("numpy", "gpubp.backends.numpy", "NumpyBackend", "cpu"),
    ("cupy", "gpubp.backends.cuda", "CupyBackend", "cuda"),
    ("numba_cuda", "gpubp.backends.cuda", "NumbaCudaBackend", "cuda"),
    ("emulated", "gpubp.backends.cuda.emulator.backend", "EmulatedBackend", "cuda-emulated"),
)
_instances: dict[tuple[str, int], Backend] = {}  # by name and number of the device


def names(device: str | None = None) -> list[str]:
    """All backend names, the preferred first; those of one kind of device ("cpu", "cuda")."""
    return [name for name, *_, home in _REGISTRY if device in (None, home)]


def class_of(name: str) -> type[Backend]:
    """The class of a registered backend.

    Raises:
        UnknownNameError: no such backend.
    """
    for known, module, cls, _ in _REGISTRY:
        if known == name:
            found: type[Backend] = getattr(importlib.import_module(module), cls)
            return found
    raise unknown_name("backend", name, names())


def backends() -> list[Probe]:
    """What was found for each backend, the preferred first."""
    return [class_of(name).probe() for name in names()]


def default_backend_name(device: str | None = None) -> str:
    """The backend used when none is asked for.

    Args:
        device: "cpu", "cuda", "cuda:N", "cuda-emulated", or None/"auto" for GPUBP_DEVICE and then
            any but that.

    Returns:
        GPUBP_BACKEND if set, else the first available one for the device.

    Raises:
        BackendError: none can be used there; says why.
    """
    kind, number = _device(device)
    asked = os.environ.get("GPUBP_BACKEND")
    if asked and asked != "auto":
        class_of(asked)
        return asked
    return _usable(kind, number)


def _usable(kind: str, number: int) -> str:
    """The preferred backend that can be used on a device.

    Raises:
        BackendError: none can be used there; says why.
    """
    reasons = []
    for name, _, _, home in _REGISTRY:
        if kind == home or (kind == "auto" and home != "cuda-emulated"):  # a device for tests
            if (name, number) in _instances:
                return name
            probe = class_of(name).probe()
            if probe.available:
                return name
            reasons.append(f"{name}: {probe.reason}")
    raise BackendError(f"no backend can run on device {kind!r}. {' '.join(reasons)}")


def _device(device: str | None) -> tuple[str, int]:
    """Kind and number of a device."""
    chosen = device if device not in (None, "auto") else os.environ.get("GPUBP_DEVICE", "auto")
    kind, colon, number = str(chosen).partition(":")
    known = ["auto", *sorted({home for *_, home in _REGISTRY})]
    if kind not in known or (colon and (kind != "cuda" or not number.isdecimal())):
        raise unknown_name("device", str(chosen), [*known, "cuda:0"])
    return kind, int(number or 0)


def get_backend(backend: str | Backend | None = None, device: str | None = None) -> Backend:
    """The backend to use.

    Args:
        backend: a name, an instance, or None/"auto".
        device: "cpu", "cuda", "cuda:N", "cuda-emulated" or None/"auto".

    Returns:
        An instance, shared by all callers of one name and device.

    Raises:
        UnknownNameError: no such backend or device.
        BackendError: asked for by name but not usable here; the message says why.
    """
    from gpubp.backends.base import Backend

    if isinstance(backend, Backend):
        return backend
    name = default_backend_name(device) if backend in (None, "auto") else str(backend)
    cls = class_of(name)
    kind, number = _device(device)
    home = next(home for known, *_, home in _REGISTRY if known == name)
    if backend not in (None, "auto") and device not in (None, "auto") and kind != home:
        raise BackendError(f"backend {name!r} runs on {home}, but device {device!r} was asked for.")
    key = (name, number if home == kind else 0)
    if key not in _instances:
        probe = cls.probe()
        if not probe.available:
            raise BackendError(f"backend {name!r} was asked for but cannot be used: {probe.reason}")
        _instances[key] = cls.on_device(key[1])
    return _instances[key]


def gpu_backend(number: int) -> Backend:
    """The backend that works on a GPU's arrays: GPUBP_BACKEND if that is one for GPUs, else the
    preferred one that can be used.

    Raises:
        BackendError: none can be used there.
    """
    asked = os.environ.get("GPUBP_BACKEND")
    name = asked if asked in names("cuda") else _usable("cuda", number)
    return get_backend(name, f"cuda:{number}")


class _Folder(ModuleType):
    """`gpubp.backends`: the folder, and the function of its name when it is called."""

    def __call__(self) -> list[Probe]:
        """What was found for each backend, the preferred first."""
        return backends()


sys.modules[__name__].__class__ = _Folder


def __getattr__(name: str) -> object:
    """The contract's classes, imported when they are used: `import gpubp` comes by here."""
    if name in ("Backend", "Feed", "Probe"):
        return getattr(importlib.import_module("gpubp.backends.base"), name)
    raise AttributeError(f"module 'gpubp.backends' has no attribute {name!r}")


__all__ = ["Backend", "Feed", "Probe", "backends", "default_backend_name", "get_backend", "names"]
