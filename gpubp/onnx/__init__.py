"""Models in ONNX's format: written from gpubp's modules, and read as modules that train.

Needs onnx: `pip install "gpubp[onnx]"`.
"""

from __future__ import annotations

from importlib.util import find_spec

from gpubp.errors import missing_extra

if find_spec("onnx") is None:
    raise missing_extra("onnx", "onnx", "gpubp.onnx")

from gpubp.onnx.imported import OnnxModule
from gpubp.onnx.listing import supported
from gpubp.onnx.loading import from_model, load
from gpubp.onnx.saving import export, save

__all__ = [
    "OnnxModule",
    "export",
    "from_model",
    "load",
    "save",
    "supported",
]
