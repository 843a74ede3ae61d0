"""The table of rules, with all families in it: whoever reads it takes it from here."""

from __future__ import annotations

from gpubp.onnx import (
    export_elementwise,
    export_pools,
    export_products,
    export_reductions,
    export_shapes,
)
from gpubp.onnx.rules import RULES

__all__ = ["FAMILIES", "RULES"]

FAMILIES = (
    export_elementwise,
    export_pools,
    export_products,
    export_reductions,
    export_shapes,
)
