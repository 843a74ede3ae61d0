"""One expression, as a PyTorch user types it, of tensors and of traced arrays: the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp.core.operators import Operators

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

X = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4, 2))
INDEX = np.array([[[0, 1], [2, 2], [1, 0], [0, 0]]])

EXPRESSIONS: dict[str, Callable[[Any], Any]] = {
    "view": lambda x: x.view(-1, 2) + x.view((12, 2)),
    "view_as, reshape_as": lambda x: x.view_as(x) + x.reshape_as(x),
    "permute": lambda x: x.permute(2, 0, 1) + x.permute((2, 0, 1)),
    "unsqueeze, squeeze": lambda x: x.unsqueeze(1).squeeze(1).unsqueeze(dim=-1).squeeze(dim=-1),
    "flatten": lambda x: x.flatten(1) + x.flatten(start_dim=1, end_dim=-1),
    "expand": lambda x: x.unsqueeze(0).expand(5, -1, -1, -1) * x.expand((5, 3, 4, 2)),
    "expand_as": lambda x: x[:1].expand_as(x),
    "tile": lambda x: x.tile(2, 1, 1) + x.tile((2, 1, 1)),
    "mean by dim": lambda x: x.mean(dim=1) + x.mean(1) + x.mean(dim=(0, 1)),
    "sum, keepdim": lambda x: x.sum(dim=-1, keepdim=True) + x.sum(-1, keepdim=True),
    "amax, amin": lambda x: x.amax(dim=1) - x.amin(dim=(1,)),
    "prod, logsumexp, norm": lambda x: x.prod(dim=1) + x.logsumexp(dim=1) + x.norm(p=2, dim=1),
    "argmax, argmin": lambda x: x.argmax(dim=1) + x.argmin(1, keepdim=True)[:, 0],
    "softmax": lambda x: x.softmax(dim=1) + x.log_softmax(-1),
    "cumsum, cumprod": lambda x: x.cumsum(dim=1) + x.cumprod(0),
    "topk": lambda x: x.topk(2, dim=1)[0],
    "masked_fill": lambda x: x.masked_fill(x > 0.5, 0.0),
    "clamp, clip": lambda x: x.clamp(min=0.2) + x.clamp(0.2, 0.5) + x.clip(0.3, 0.6),
    "detach, clone, contiguous": lambda x: x.detach() + x.clone() + x.contiguous(),
    "exp, log, sqrt": lambda x: x.exp() + x.log() + x.sqrt() + x.square() + x.rsqrt() + x.abs(),
    "tanh, sigmoid, relu": lambda x: x.tanh() + x.sigmoid() + x.neg().relu() + x.reciprocal(),
    "add, sub, mul, div, pow": lambda x: x.add(1.0).sub(x).mul(2.0).div(3.0).pow(2),
    "eq, ne": lambda x: x.eq(x).logical_and(x.ne(0.5)),
    "lt, ge": lambda x: x.lt(2.0).logical_or(x.ge(0.1)),
    "mm, matmul, t": lambda x: x[:, :3, 0].mm(x[:, :3, 1].t()).matmul(x[0, :3]),
    "bmm": lambda x: x.bmm(x.transpose(1, 2) if hasattr(x, "new_zeros") else x.swapaxes(1, 2)),
    "swapaxes, movedim, flip, roll": lambda x: x.swapaxes(0, 2).movedim(0, 1).flip(0).roll(1, 0),
    "chunk, unbind": lambda x: x.chunk(2, dim=1)[1] + x.unbind(0)[1][:2],
    "float, double, to": lambda x: x.float().double().to(dtype=x.dtype).to("cpu"),
    "type_as, where": lambda x: (x > 0.5).type_as(x).where(x > 0.3, x),
    "long, int, bool": lambda x: x.mul(7).long() + x.mul(3).int() + x.bool(),
    "numel, dim": lambda x: x * x.numel() * x.dim(),
    "tril, diagonal": lambda x: x[:, :3, 0].tril().diagonal(),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "maximum, lerp, atan2": lambda x: x.maximum(x * 0.5).lerp(x, 0.3).exp2(),
    "any, all": lambda x: (x > 0.8).any(dim=1).logical_or((x > 0.0).all(dim=1)),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_methods_are_torchs(name: str) -> None:
    fn = EXPRESSIONS[name]
    wanted = fn(torch.from_numpy(X)).numpy()
    found = gp.compile(fn, backend="numpy")(X)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_elements_at_places_are_torchs() -> None:
    wanted = torch.from_numpy(X).gather(0, torch.from_numpy(INDEX)).numpy()
    found = gp.compile(lambda x, i: x.gather(0, i), backend="numpy")(X, INDEX)
    np.testing.assert_array_equal(found, wanted)


def test_every_method_of_an_array_is_one_of_tensors_or_numpys() -> None:
    """So that there is none of our own, which neither user would know."""
    known = {*dir(torch.Tensor), *dir(np.ndarray), *dir(np)}
    assert set(Operators.methods) <= known
