"""gpubp: whole training steps compiled to fused kernels.

Trace a Python function once, get a program of fused instructions that runs thousands of steps
without Python. See `compile_step`, `compile`, `grad`, `nn`, `optim`, `Trainer`.

A name is imported when it is first used, so what a program does not use costs it nothing.

What goes on is told to the loggers below "gpubp" of Python's `logging`, which are silent unless the
program that uses them asks: `logging.getLogger("gpubp").setLevel("INFO")`, and a handler.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gpubp.backends import backends, default_backend_name

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from gpubp import compiler as compiler
    from gpubp import core as core
    from gpubp import data, distributed, errors, nn, ops, optim, train
    from gpubp import onnx as onnx
    from gpubp import runtime as runtime
    from gpubp import torch as torch
    from gpubp.compiler.branches import cond, while_loop
    from gpubp.compiler.checkpoint import checkpoint
    from gpubp.compiler.custom_vjp import custom_vjp
    from gpubp.compiler.grad import grad, value_and_grad
    from gpubp.compiler.pipeline import Options
    from gpubp.compiler.pullbacks import vjp
    from gpubp.compiler.scan import scan
    from gpubp.compiler.transforms import hessian, jacfwd, jacrev, jvp
    from gpubp.compiler.transforms import jacrev as jacobian
    from gpubp.compiler.vmap import vmap
    from gpubp.core import Array
    from gpubp.core.whole import whole
    from gpubp.ops.custom import custom_op
    from gpubp.ops.random import Generator, manual_seed
    from gpubp.runtime.ensemble import Ensemble
    from gpubp.runtime.function import compile_function as compile
    from gpubp.runtime.loss_scale import LossScale
    from gpubp.runtime.populate import Population, compile_population
    from gpubp.runtime.populations import Populations
    from gpubp.runtime.step import Step, compile_step
    from gpubp.train import Trainer
else:
    import sys

    from gpubp import habits, lazy

    # The folder, which can be called as well: the function would hide what is in it.
    backends = sys.modules[backends.__module__]

    # The same names; folders are named by themselves.
    _LAZY = {
        **dict.fromkeys(("compiler", "core", "data", "distributed"), ""),
        **dict.fromkeys(("errors", "nn", "ops"), ""),
        **dict.fromkeys(("onnx", "optim", "runtime", "torch", "train"), ""),
        "Array": "core",
        "Ensemble": "runtime.ensemble",
        "Generator": "ops.random",
        "LossScale": "runtime.loss_scale",
        "Options": "compiler.pipeline",
        "Population": "runtime.populate",
        "Populations": "runtime.populations",
        "Step": "runtime.step",
        "Trainer": "train",
        "checkpoint": "compiler.checkpoint",
        "compile": "runtime.function:compile_function",
        "compile_population": "runtime.populate",
        "compile_step": "runtime.step",
        "cond": "compiler.branches",
        "custom_op": "ops.custom",
        "custom_vjp": "compiler.custom_vjp",
        "grad": "compiler.grad",
        "hessian": "compiler.transforms",
        "jacfwd": "compiler.transforms",
        "jacobian": "compiler.transforms:jacrev",
        "jacrev": "compiler.transforms",
        "jvp": "compiler.transforms",
        "manual_seed": "ops.random",
        "scan": "compiler.scan",
        "value_and_grad": "compiler.grad",
        "vjp": "compiler.pullbacks",
        "vmap": "compiler.vmap",
        "while_loop": "compiler.branches",
        "whole": "core.whole",
    }

    __getattr__, __dir__ = lazy.names("gpubp", _LAZY, habits.PACKAGE)
    # What `core` asks for, and stands above it.
    lazy.supply("ops at once", "gpubp.runtime.eager")


__all__ = [
    "Array",
    "Ensemble",
    "Generator",
    "LossScale",
    "Options",
    "Population",
    "Populations",
    "Step",
    "Trainer",
    "backends",
    "checkpoint",
    "compile",
    "compile_population",
    "compile_step",
    "cond",
    "custom_op",
    "custom_vjp",
    "data",
    "default_backend_name",
    "distributed",
    "errors",
    "grad",
    "hessian",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "manual_seed",
    "nn",
    "ops",
    "optim",
    "scan",
    "train",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
    "whole",
]
