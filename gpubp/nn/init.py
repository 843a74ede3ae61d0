"""The one place where initial weights are drawn.

They come from the default random generator of the ops, so `gp.manual_seed` covers them too: each
draw is a function of the generator's (seed, counter) and advances the counter by one. A fresh
process starts from seed 0, so two runs of one script build the same model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.ops import random as random_ops


def manual_seed(seed: int) -> None:
    """Seed initial weights and every op that draws from the default generator.

    Args:
        seed: an int in [0, 2**63).

    Raises:
        DataError: any other seed.
    """
    random_ops.manual_seed(seed)


def uniform(shape: tuple[int, ...], bound: float, dtype: Any = "float32") -> NDArray[Any]:
    """Numbers uniform in [-bound, bound), drawn in float64 whatever the dtype."""
    state = random_ops.default_generator.state.value
    # NumPy's own generator, because a large layer takes Philox in plain NumPy seconds.
    rng = np.random.default_rng([int(word) for word in state])
    state[1] += 1
    return rng.uniform(-bound, bound, shape).astype(dtype)


def fan_in_bound(fan_in: int) -> float:
    """The bound that PyTorch's Linear uses: 1 / sqrt(fan_in), for fan_in of at least 1.

    It is Kaiming's uniform bound (He et al. 2015, arXiv:1502.01852) sqrt(6 / ((1 + a^2) fan_in))
    at a = sqrt(5).
    """
    return 1.0 / math.sqrt(fan_in)
