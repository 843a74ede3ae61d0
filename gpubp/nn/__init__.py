"""Modules and losses with torch's names, shapes and definitions."""

from gpubp.nn import init
from gpubp.nn.activation import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    Hardshrink,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    LeakyReLU,
    LogSigmoid,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softplus,
    Softshrink,
    Softsign,
    Tanh,
    Tanhshrink,
    Threshold,
)
from gpubp.nn.collection import ModuleDict, ModuleList, ParameterDict, ParameterList
from gpubp.nn.container import Sequential
from gpubp.nn.dropout import Dropout
from gpubp.nn.embedding import Embedding
from gpubp.nn.linear import Bilinear, Linear
from gpubp.nn.loss import CrossEntropyLoss, MultiMarginLoss, NLLLoss
from gpubp.nn.loss_binary import (
    BCELoss,
    BCEWithLogitsLoss,
    MultiLabelSoftMarginLoss,
    SoftMarginLoss,
)
from gpubp.nn.loss_pairs import CosineEmbeddingLoss, HingeEmbeddingLoss, MarginRankingLoss
from gpubp.nn.loss_values import (
    GaussianNLLLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    PoissonNLLLoss,
    SmoothL1Loss,
)
from gpubp.nn.module import Module
from gpubp.nn.normalization import BatchNorm1d, LayerNorm, RMSNorm
from gpubp.nn.parameter import Buffer, Parameter
from gpubp.nn.shape import Flatten, Identity, Unflatten
from gpubp.nn.softmax import LogSoftmax, Softmax, Softmin
from gpubp.nn.table import Summary, SummaryRow, summary

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "Bilinear",
    "Buffer",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GaussianNLLLoss",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSigmoid",
    "LogSoftmax",
    "MSELoss",
    "MarginRankingLoss",
    "Mish",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "PoissonNLLLoss",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Summary",
    "SummaryRow",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "Unflatten",
    "init",
    "summary",
]
