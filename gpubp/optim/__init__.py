"""Optimisers with torch's names, arguments and definitions.

A name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.optim import lr_scheduler, swa_utils
    from gpubp.optim.adadelta import Adadelta
    from gpubp.optim.adafactor import Adafactor
    from gpubp.optim.adagrad import Adagrad
    from gpubp.optim.adam import Adam, AdamW
    from gpubp.optim.adamax import Adamax
    from gpubp.optim.asgd import ASGD
    from gpubp.optim.averaging import EMA
    from gpubp.optim.base import Optimizer
    from gpubp.optim.group import ParamGroup
    from gpubp.optim.lbfgs import LBFGS
    from gpubp.optim.lion import Lion
    from gpubp.optim.muon import Muon
    from gpubp.optim.nadam import NAdam
    from gpubp.optim.radam import RAdam
    from gpubp.optim.rmsprop import RMSprop
    from gpubp.optim.rprop import Rprop
    from gpubp.optim.sgd import SGD
    from gpubp.optim.sparse_adam import SparseAdam
else:
    from gpubp import lazy

    # The same names, by the submodule that has them.
    _LAZY = lazy.by_home(
        {
            "": "lr_scheduler swa_utils",
            "adadelta": "Adadelta",
            "adafactor": "Adafactor",
            "adagrad": "Adagrad",
            "adam": "Adam AdamW",
            "adamax": "Adamax",
            "asgd": "ASGD",
            "averaging": "EMA",
            "base": "Optimizer",
            "group": "ParamGroup",
            "lbfgs": "LBFGS",
            "lion": "Lion",
            "muon": "Muon",
            "nadam": "NAdam",
            "radam": "RAdam",
            "rmsprop": "RMSprop",
            "rprop": "Rprop",
            "sgd": "SGD",
            "sparse_adam": "SparseAdam",
        }
    )
    __getattr__, __dir__ = lazy.names("gpubp.optim", _LAZY)

__all__ = [
    "ASGD",
    "EMA",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "ParamGroup",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]
