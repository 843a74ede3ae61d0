"""gpubp: whole training steps compiled to fused kernels.

Trace a Python function once, get a program of fused instructions that runs thousands of steps
without Python. See `compile_step`, `compile`, `grad`, `nn`, `optim`, `Trainer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpubp import errors, ops
from gpubp.backends import backends, default_backend_name
from gpubp.compiler.grad import grad, value_and_grad
from gpubp.compiler.pipeline import Options
from gpubp.compiler.pullbacks import vjp
from gpubp.core import Array
from gpubp.ops.custom import custom_op
from gpubp.ops.random import Generator, manual_seed
from gpubp.runtime import eager as _eager  # noqa: F401 - fills in how ops work on a GPU
from gpubp.runtime.function import compile_function as compile
from gpubp.runtime.loss_scale import LossScale
from gpubp.runtime.step import Step, compile_step

if TYPE_CHECKING:
    from gpubp import nn, optim
    from gpubp.train import Trainer

__version__ = "0.1.0"

_LAZY = {"nn": "gpubp.nn", "optim": "gpubp.optim", "train": "gpubp.train", "data": "gpubp.data"}


def __getattr__(name: str) -> Any:
    """Load front ends on first use, to keep `import gpubp` quick."""
    import importlib

    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    if name == "Trainer":
        return importlib.import_module("gpubp.train").Trainer
    raise AttributeError(f"module 'gpubp' has no attribute {name!r}")


__all__ = [
    "Array",
    "Generator",
    "LossScale",
    "Options",
    "Step",
    "Trainer",
    "backends",
    "compile",
    "compile_step",
    "custom_op",
    "default_backend_name",
    "errors",
    "grad",
    "manual_seed",
    "nn",
    "ops",
    "optim",
    "value_and_grad",
    "vjp",
]
