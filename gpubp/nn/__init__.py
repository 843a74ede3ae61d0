"""Modules and losses with torch's names, shapes and definitions."""

from gpubp.nn import init
from gpubp.nn.activation import GELU, ReLU, Sigmoid, Tanh
from gpubp.nn.container import Sequential
from gpubp.nn.dropout import Dropout
from gpubp.nn.linear import Linear
from gpubp.nn.loss import CrossEntropyLoss, MSELoss
from gpubp.nn.module import Module
from gpubp.nn.parameter import Buffer, Parameter

__all__ = [
    "GELU",
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Linear",
    "MSELoss",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "init",
]
