"""Optimisers with torch's names, arguments and definitions."""

from gpubp.optim import lr_scheduler
from gpubp.optim.adadelta import Adadelta
from gpubp.optim.adagrad import Adagrad
from gpubp.optim.adam import Adam, AdamW
from gpubp.optim.adamax import Adamax
from gpubp.optim.asgd import ASGD
from gpubp.optim.averaging import EMA
from gpubp.optim.base import Optimizer
from gpubp.optim.group import ParamGroup
from gpubp.optim.lion import Lion
from gpubp.optim.nadam import NAdam
from gpubp.optim.radam import RAdam
from gpubp.optim.rmsprop import RMSprop
from gpubp.optim.rprop import Rprop
from gpubp.optim.sgd import SGD

__all__ = [
    "ASGD",
    "EMA",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "ParamGroup",
    "RAdam",
    "RMSprop",
    "Rprop",
    "lr_scheduler",
]
