"""What of torch has a counterpart, from the tables that are used."""

from __future__ import annotations

from typing import Any

from gpubp.torch.optimizer import NAMES
from gpubp.torch.tables import RULES


def supported() -> dict[str, list[str]]:
    """What can be translated.

    Returns:
        {"operations": names of ATen's operations, each also in place (`add_`), "optimizers": names
        of `torch.optim`, "control": what else is followed}.
    """
    names = {name.partition(".")[0] for name in RULES}
    found: dict[str, Any] = {
        "operations": sorted(names),
        "optimizers": NAMES.split(),
        "control": ["torch.no_grad", "torch.enable_grad", "Python's, on shapes and attributes"],
    }
    return found
