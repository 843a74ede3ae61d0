"""Training loops: Trainer, callbacks, what is recorded, and files of models and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpubp.train.callbacks import Callback, LRMonitor, TerminateOnNaN
from gpubp.train.history import History
from gpubp.train.metrics import metric
from gpubp.train.monitors import EarlyStopping, ModelCheckpoint
from gpubp.train.trainer import Trainer

if TYPE_CHECKING:
    from gpubp.train.loggers import CSVLogger, TensorBoard, WandbLogger
    from gpubp.train.lr_finder import LRFinder
    from gpubp.train.modelfile import load_model, load_weights, save_model

_LAZY = {
    "CSVLogger": "loggers",
    "LRFinder": "lr_finder",
    "TensorBoard": "loggers",
    "WandbLogger": "loggers",
    "load_model": "modelfile",
    "load_weights": "modelfile",
    "save_model": "modelfile",
}


def __getattr__(name: str) -> Any:
    """Load on first use what few runs need, to keep starting quick."""
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(f"gpubp.train.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'gpubp.train' has no attribute {name!r}")


__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LRFinder",
    "LRMonitor",
    "ModelCheckpoint",
    "TensorBoard",
    "TerminateOnNaN",
    "Trainer",
    "WandbLogger",
    "load_model",
    "load_weights",
    "metric",
    "save_model",
]
