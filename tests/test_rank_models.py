"""Random models of all kinds on one to four ranks: none is refused, and they are those of one."""

from __future__ import annotations

import numpy as np
import pytest
from rank_models import case, trained
from rank_work import assert_close, assert_same_bits

from gpubp.distributed import LocalCommunicator, run_threads

# The first ten have every kind of model; the others belong to the full suite.
SEEDS = [pytest.param(seed, marks=[] if seed < 10 else [pytest.mark.full]) for seed in range(200)]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models_are_not_refused_and_are_those_of_one_rank(seed):
    size = 1 + (seed // 5) % 4
    asked = case(seed, size)
    first, *others = run_threads(size, lambda c: trained(c, asked, seed), timeout=120)
    for found in others:
        assert_same_bits(found, first)
    state = {name: value for name, value in first.items() if name not in ("losses", "totals")}
    assert all(np.isfinite(value).all() for value in state.values())
    if asked.sharing.get("deterministic"):
        assert_same_bits(first, trained(LocalCommunicator(), asked, seed))
    if asked.by_rows:
        assert_close(first, trained(None, asked, seed))
