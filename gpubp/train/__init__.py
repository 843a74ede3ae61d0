"""Training loops: Trainer, callbacks, what is recorded, and files of models and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.train.callbacks import Callback, LRMonitor, TerminateOnNaN
    from gpubp.train.ctc_decoding import ctc_beam, ctc_greedy
    from gpubp.train.decoding import Beams, beam_search
    from gpubp.train.detection import mean_average_precision
    from gpubp.train.edits import edit_distance, error_rate
    from gpubp.train.flax_weights import load_flax_weights
    from gpubp.train.history import History
    from gpubp.train.keras_weights import load_keras_weights
    from gpubp.train.loggers import CSVLogger
    from gpubp.train.lr_finder import LRFinder
    from gpubp.train.metrics import metric
    from gpubp.train.modelfile import load_model, load_weights, save_model
    from gpubp.train.monitors import EarlyStopping, ModelCheckpoint
    from gpubp.train.populations import load_population, save_population
    from gpubp.train.runfolder import RunFolder
    from gpubp.train.trackers import MLflowLogger, TensorBoard, TrackioLogger, WandbLogger
    from gpubp.train.tracking import Tracker
    from gpubp.train.trainer import Trainer
else:
    from gpubp import lazy

    # The same names, by the submodule that has them.
    _LAZY = lazy.by_home(
        {
            "callbacks": "Callback LRMonitor TerminateOnNaN",
            "ctc_decoding": "ctc_beam ctc_greedy",
            "decoding": "Beams beam_search",
            "detection": "mean_average_precision",
            "edits": "edit_distance error_rate",
            "history": "History",
            "loggers": "CSVLogger",
            "lr_finder": "LRFinder",
            "metrics": "metric",
            "flax_weights": "load_flax_weights",
            "keras_weights": "load_keras_weights",
            "modelfile": "load_model load_weights save_model",
            "monitors": "EarlyStopping ModelCheckpoint",
            "populations": "load_population save_population",
            "runfolder": "RunFolder",
            "trackers": "MLflowLogger TensorBoard TrackioLogger WandbLogger",
            "tracking": "Tracker",
            "trainer": "Trainer",
        }
    )
    __getattr__, __dir__ = lazy.names("gpubp.train", _LAZY)

__all__ = [
    "Beams",
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LRFinder",
    "LRMonitor",
    "MLflowLogger",
    "ModelCheckpoint",
    "RunFolder",
    "TensorBoard",
    "TerminateOnNaN",
    "Tracker",
    "TrackioLogger",
    "Trainer",
    "WandbLogger",
    "beam_search",
    "ctc_beam",
    "ctc_greedy",
    "edit_distance",
    "error_rate",
    "load_flax_weights",
    "load_keras_weights",
    "load_model",
    "load_population",
    "load_weights",
    "mean_average_precision",
    "metric",
    "save_model",
    "save_population",
]
