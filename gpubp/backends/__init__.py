"""Backends: found by name, chosen by argument, then environment, then availability."""

from __future__ import annotations

import importlib
import os

from gpubp.backends.base import Backend, Feed, Probe
from gpubp.errors import BackendError, unknown_name

# In order of preference: name, module, class, device.
_REGISTRY = (
    ("numba", "gpubp.backends.numba_cpu", "NumbaBackend", "cpu"),
    ("numpy", "gpubp.backends.numpy", "NumpyBackend", "cpu"),
    ("cupy", "gpubp.backends.cupy", "CupyBackend", "cuda"),
)
_instances: dict[str, Backend] = {}


def names() -> list[str]:
    """All backend names, the preferred first."""
    return [name for name, *_ in _REGISTRY]


def _class_of(name: str) -> type[Backend]:
    for known, module, cls, _ in _REGISTRY:
        if known == name:
            found: type[Backend] = getattr(importlib.import_module(module), cls)
            return found
    raise unknown_name("backend", name, names())


def backends() -> list[Probe]:
    """What was found for each backend, the preferred first."""
    return [_class_of(name).probe() for name in names()]


def default_backend_name(device: str | None = None) -> str:
    """The backend used when none is asked for.

    Args:
        device: "cpu", or None/"auto" for GPUBP_DEVICE and then any.

    Returns:
        GPUBP_BACKEND if set, else the first available one for the device.
    """
    device = _device(device)
    asked = os.environ.get("GPUBP_BACKEND")
    if asked and asked != "auto":
        _class_of(asked)
        return asked
    for name, _, _, home in _REGISTRY:
        if device in ("auto", home) and (name in _instances or _class_of(name).probe().available):
            return name
    raise BackendError(f"no backend can run on device {device!r}; see gpubp.backends().")


def _device(device: str | None) -> str:
    chosen = device if device not in (None, "auto") else os.environ.get("GPUBP_DEVICE", "auto")
    known = ["auto", *sorted({home for *_, home in _REGISTRY})]
    if chosen not in known:
        raise unknown_name("device", chosen, known)
    return str(chosen)


def get_backend(backend: str | Backend | None = None, device: str | None = None) -> Backend:
    """The backend to use.

    Args:
        backend: a name, an instance, or None/"auto".
        device: "cpu" or None/"auto".

    Returns:
        An instance, shared by all callers of one name.

    Raises:
        UnknownNameError: no such backend or device.
        BackendError: asked for by name but not usable here; the message says why.
    """
    if isinstance(backend, Backend):
        return backend
    name = default_backend_name(device) if backend in (None, "auto") else str(backend)
    cls = _class_of(name)
    _device(device)
    if name not in _instances:
        probe = cls.probe()
        if not probe.available:
            raise BackendError(f"backend {name!r} was asked for but cannot be used: {probe.reason}")
        _instances[name] = cls()
    return _instances[name]


__all__ = ["Backend", "Feed", "Probe", "backends", "default_backend_name", "get_backend", "names"]
