"""Are numba-cuda and cuda.core there, and a GPU that they can use?"""

from __future__ import annotations

from gpubp.backends.cuda.drivers.core_calls import PIP, CoreNvrtc, Modules, called, modules
from gpubp.backends.cuda.drivers.numba_arrays import NumbaCuda
from gpubp.errors import BackendError


def probe() -> tuple[bool, str, dict[str, str]]:
    """(usable, why or why not, details) of the first GPU; never raises."""
    try:
        numba, found = import_numba_cuda()
        count = numba.count()
        details = {"numba-cuda": numba.version, "cuda.core": found.core.__version__}
        if count == 0:
            return False, "numba-cuda is installed, but there is no GPU.", details
        major, minor = CoreNvrtc(found).version()
        details |= {
            "gpu": str(found.core.Device(0).name),
            "gpus": str(count),
            "driver": str(called(found.driver.cuDriverGetVersion())),
            "nvrtc": f"{major}.{minor}",
        }
    except BackendError as err:
        return False, str(err), {}
    except Exception as err:
        return False, f"cuda.core cannot use a GPU here: {type(err).__name__}: {err}", {}
    return True, "fused CUDA kernels in CUDA graphs", details


def import_numba_cuda() -> tuple[NumbaCuda, Modules]:
    """Numba's part, and cuda.core with its bindings.

    Numba is asked for NVIDIA's driver first: where there is none, it says so; cuda.core, asked for
    code or memory then, may not come back.

    Raises:
        BackendError: a piece is missing; says which, and the pip line.
    """
    try:
        numba = NumbaCuda()
        why = numba.why_not()
    except Exception as err:  # it looks for libraries when it is imported
        raise BackendError(f"{err}: {PIP}") from err
    if why:
        raise BackendError(
            f"numba-cuda {numba.version} finds no driver that it can use ({why}). Install NVIDIA's "
            f"driver, or, where there is one, what fits it: {PIP}."
        )
    return numba, modules()
