"""Learning-rate schedules with torch's names, arguments and definitions.

Call `step()` once an epoch between runs; or give the schedule to `gp.compile_step(...,
scheduler=...)`, and it takes one step at each update inside the compiled program.
"""

from gpubp.optim.lr_scheduler.base import LRScheduler
from gpubp.optim.lr_scheduler.composite import ChainedScheduler, SequentialLR
from gpubp.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from gpubp.optim.lr_scheduler.cycles import CyclicLR, OneCycleLR
from gpubp.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    InverseTimeLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from gpubp.optim.lr_scheduler.functions import LambdaLR, MultiplicativeLR
from gpubp.optim.lr_scheduler.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "InverseTimeLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
