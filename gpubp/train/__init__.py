"""Training loops: Trainer and what it records."""

from gpubp.train.history import History
from gpubp.train.trainer import Trainer

__all__ = ["History", "Trainer"]
