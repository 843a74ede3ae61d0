"""Is CuPy there, and a GPU that it can use?"""

from __future__ import annotations

from typing import Any

from gpubp.backends.cuda.drivers import nvrtc
from gpubp.backends.cuda.products import PIP
from gpubp.errors import BackendError


def probe() -> tuple[bool, str, dict[str, str]]:
    """(usable, why or why not, details) of the first GPU; never raises."""
    try:
        cupy, count = import_cupy()
        details = {"cupy": cupy.__version__}
        if count == 0:
            return False, "CuPy is installed, but there is no GPU.", details
        major, minor = nvrtc.CupyNvrtc(cupy.cuda.nvrtc).version()
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        details |= {
            "gpu": gpu_name(properties),
            "gpus": str(count),
            "driver": str(cupy.cuda.runtime.driverGetVersion()),
            "runtime": str(cupy.cuda.runtime.runtimeGetVersion()),
            "nvrtc": f"{major}.{minor}",
        }
    except BackendError as err:
        return False, str(err), {}
    except Exception as err:
        return False, f"CuPy cannot use a GPU here: {type(err).__name__}: {err}", {}
    return True, "fused CUDA kernels in CUDA graphs", details


def gpu_name(properties: dict[str, Any]) -> str:
    """What the device is called."""
    name = properties["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def import_cupy() -> tuple[Any, int]:
    """CuPy, and the number of GPUs.

    Raises:
        BackendError: a piece is missing; says which, and the pip line.
    """
    try:
        import cupy
    except ImportError as err:
        raise BackendError(f"CuPy is not installed: {PIP}") from err
    try:
        return cupy, int(cupy.cuda.runtime.getDeviceCount())
    except Exception as err:
        raise BackendError(
            f"CuPy {cupy.__version__} finds no driver that it can use ({err}). Install NVIDIA's "
            f"driver, or, where there is one, the CuPy that fits it: {PIP}."
        ) from err
