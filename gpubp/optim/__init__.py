"""Optimisers with torch's names, arguments and definitions."""

from gpubp.optim.adam import Adam
from gpubp.optim.base import Optimizer
from gpubp.optim.group import ParamGroup
from gpubp.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "ParamGroup"]
