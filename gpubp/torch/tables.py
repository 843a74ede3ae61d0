"""All families of rules: importing this fills the table."""

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
