"""The table of rules, with all families in it: whoever reads it takes it from here."""

from __future__ import annotations

from gpubp.torch.aten import (
    activations,
    arithmetic,
    layers,
    losses,
    made,
    normalization,
    places,
    products,
    recurrent,
    reductions,
    shapes,
)
from gpubp.torch.rules import RULES

__all__ = ["FAMILIES", "RULES"]

FAMILIES = (
    activations,
    arithmetic,
    layers,
    losses,
    made,
    normalization,
    places,
    products,
    recurrent,
    reductions,
    shapes,
)
