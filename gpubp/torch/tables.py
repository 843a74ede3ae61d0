"""The table of rules, with all families in it: whoever reads it takes it from here."""

from __future__ import annotations

from gpubp.torch import (
    aten_activations,
    aten_arithmetic,
    aten_layers,
    aten_losses,
    aten_made,
    aten_normalization,
    aten_places,
    aten_products,
    aten_recurrent,
    aten_reductions,
    aten_shapes,
)
from gpubp.torch.rules import RULES

__all__ = ["FAMILIES", "RULES"]

FAMILIES = (
    aten_activations,
    aten_arithmetic,
    aten_layers,
    aten_losses,
    aten_made,
    aten_normalization,
    aten_places,
    aten_products,
    aten_recurrent,
    aten_reductions,
    aten_shapes,
)
