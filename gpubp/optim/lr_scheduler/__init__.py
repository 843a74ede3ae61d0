"""Learning-rate schedules with torch's names, arguments and definitions.

Call `step()` once an epoch between runs; or give the schedule to `gp.compile_step(...,
scheduler=...)`, and it takes one step at each update inside the compiled program.

A name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.optim.lr_scheduler.base import LRScheduler
    from gpubp.optim.lr_scheduler.composite import ChainedScheduler, SequentialLR
    from gpubp.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
    from gpubp.optim.lr_scheduler.cyclic import CyclicLR
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
    from gpubp.optim.lr_scheduler.one_cycle import OneCycleLR
    from gpubp.optim.lr_scheduler.plateau import ReduceLROnPlateau
else:
    from gpubp import lazy

    # The same names, by the submodule that has them.
    _LAZY = lazy.by_home(
        {
            "base": "LRScheduler",
            "composite": "ChainedScheduler SequentialLR",
            "cosine": "CosineAnnealingLR CosineAnnealingWarmRestarts",
            "cyclic": "CyclicLR",
            "factors": """
                ConstantLR ExponentialLR InverseTimeLR LinearLR MultiStepLR PolynomialLR StepLR
            """,
            "functions": "LambdaLR MultiplicativeLR",
            "one_cycle": "OneCycleLR",
            "plateau": "ReduceLROnPlateau",
        }
    )
    __getattr__, __dir__ = lazy.names("gpubp.optim.lr_scheduler", _LAZY)

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
