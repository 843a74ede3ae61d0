"""Training loops: Trainer, callbacks, what is recorded, and files of models and runs."""

from gpubp.train.callbacks import (
    Callback,
    EarlyStopping,
    LRMonitor,
    ModelCheckpoint,
    TerminateOnNaN,
)
from gpubp.train.history import History
from gpubp.train.loggers import CSVLogger, TensorBoard, WandbLogger
from gpubp.train.lr_finder import LRFinder
from gpubp.train.modelfile import load_model, load_weights, save_model
from gpubp.train.trainer import Trainer

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
    "save_model",
]
