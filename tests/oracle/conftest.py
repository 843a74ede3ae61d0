"""A model of ours and one of torch's with the same weights, for each dtype and backend."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from registered import BACKENDS
from tolerances import ORACLE

if TYPE_CHECKING:
    from twin import Twin


@pytest.fixture(params=list(itertools.product(ORACLE, BACKENDS)), ids="-".join)
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    """torch's default dtype is the models': it keeps scalar state (NAdam's product) in that."""
    import torch
    from twin import Twin

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, request.param[0]))
    yield Twin(*request.param)
    torch.set_default_dtype(before)
