"""Attention against torch: of every mask and size, once and twice differentiated, on every backend;
and multi-head attention written in ops trains as torch's own module does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from registered import BACKENDS as HOST_BACKENDS
from shim_backend import shim_backend
from tolerances import ORACLE

import gpubp as gp
from gpubp import nn, ops, optim

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
cases = pytest.importorskip("functional_cases")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

WIDTH, HEADS, STEPS = 8, 2, 4
without_compiler = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
BACKENDS = [*HOST_BACKENDS, pytest.param("cuda", marks=without_compiler)]
SIZES = [(4, 8, False), (3, 5, True), (1, 1, False), (2, 7, True)]  # batch, length, masked


def _backend(name: str) -> Any:
    return shim_backend() if name == "cuda" else name


class Attention(nn.Module):
    """As torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), with its parameters."""

    def __init__(self, other: Any, masked: bool) -> None:
        super().__init__()
        take = lambda p: nn.Parameter(p.detach().numpy().copy())  # noqa: E731
        self.in_weight, self.in_bias = take(other.in_proj_weight), take(other.in_proj_bias)
        self.out_weight, self.out_bias = take(other.out_proj.weight), take(other.out_proj.bias)
        self.masked = masked

    def forward(self, x: Any) -> Any:
        size, length, _ = x.shape
        each = WIDTH // HEADS
        mixed = x @ self.in_weight.T + self.in_bias

        def heads(i: int) -> Any:
            part = mixed[:, :, i * WIDTH : (i + 1) * WIDTH]
            return ops.swapaxes(part.reshape(size, length, HEADS, each), 1, 2)

        q, k, v = (heads(i) for i in range(3))
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2)) * each**-0.5
        if self.masked:
            later = np.triu(np.ones((length, length), bool), 1)
            scores = ops.where(later, -1e30, scores)
        joined = ops.swapaxes(ops.matmul(ops.softmax(scores), v), 1, 2)
        return joined.reshape(size, length, WIDTH) @ self.out_weight.T + self.out_bias


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ORACLE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_trains_as_torchs(backend: str, dtype: str, size: Any) -> None:
    batch, length, masked = size
    torch.manual_seed(0)
    other = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=getattr(torch, dtype))
    model = Attention(other, masked)
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(batch, length, WIDTH)).astype(dtype) for _ in range(2))
    step = gp.compile_step(
        lambda x, y: ops.mean(ops.square(model(x) - y)),
        optim.SGD(model.parameters(), lr=0.3, momentum=0.9),
        backend=_backend(backend),
    )
    theirs = torch.optim.SGD(other.parameters(), lr=0.3, momentum=0.9)
    later = torch.triu(torch.ones(length, length, dtype=torch.bool), 1) if masked else None
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(STEPS):
        theirs.zero_grad()
        out, _weights = other(tx, tx, tx, attn_mask=later)
        loss = torch.mean((out - ty) ** 2)
        loss.backward()
        theirs.step()
        np.testing.assert_allclose(step(x, y), loss.item(), rtol=ORACLE[dtype])
    for mine, its in (
        (model.in_weight, other.in_proj_weight),
        (model.in_bias, other.in_proj_bias),
        (model.out_weight, other.out_proj.weight),
        (model.out_bias, other.out_proj.bias),
    ):
        expected = its.detach().numpy()
        atol = ORACLE[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(mine.value, expected, rtol=0, atol=atol)
    mine = gp.compile(model, backend=_backend(backend))(x)
    expected = other(tx, tx, tx, attn_mask=later)[0].detach().numpy()
    np.testing.assert_allclose(mine, expected, rtol=0, atol=ORACLE[dtype] * np.abs(expected).max())


CASES = cases.attention()


def _floats(args: Any) -> list[int]:
    return [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]


def _weights(shape: Any) -> Any:
    return np.cos(np.arange(np.prod(shape))).reshape(shape)


def _theirs(at: int, dtype: str) -> list[Any]:
    """The result, its gradients by all floats, and those of the sum of their sines."""
    name, args, options = CASES[at]
    floats = _floats(args)
    given = [
        torch.from_numpy(a.astype(dtype) if i in floats else a) if isinstance(a, np.ndarray) else a
        for i, a in enumerate(args)
    ]
    leaves = [given[i].requires_grad_() for i in floats]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # others: once only
        out = getattr(torch.nn.functional, name)(*given, **options)
    loss = (out * torch.from_numpy(_weights(tuple(out.shape)).astype(dtype))).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    first = [torch.zeros_like(x) if g is None else g for g, x in zip(first, leaves, strict=True)]
    return [out, *first, *_second(first, leaves)]


def _second(first: list[Any], leaves: list[Any]) -> list[Any]:
    # Of hidden scores torch has NaN: 0 by its rules of -inf, which the sine of 0 keeps away from.
    total = sum(torch.where(torch.isfinite(g), g, 0.0).sin().sum() for g in first)
    if not total.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


def _mine(at: int, dtype: str, backend: Any) -> list[Any]:
    name, args, options = CASES[at]
    floats = _floats(args)

    def attend(*xs: Any) -> Any:
        given = list(args)
        for i, x in zip(floats, xs, strict=True):
            given[i] = x
        return getattr(ops, name)(*given, **options)

    def loss(*xs: Any) -> Any:
        out = attend(*xs)
        return ops.sum(ops.multiply(out, _weights(out.shape).astype(dtype)))

    every = tuple(range(len(floats)))

    def total(*xs: Any) -> Any:
        return sum(ops.sum(ops.sin(g)) for g in gp.grad(loss, argnums=every)(*xs))

    def run(*xs: Any) -> Any:
        first = gp.grad(loss, argnums=every)(*xs)
        return [attend(*xs), *first, *gp.grad(total, argnums=every)(*xs)]

    return gp.compile(run, backend=backend)(*[args[i].astype(dtype) for i in floats])


@pytest.mark.parametrize("at", range(len(CASES)))
@pytest.mark.parametrize("dtype", ORACLE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_attention_and_its_gradients_equal_torchs(backend: str, dtype: str, at: int) -> None:
    found = _mine(at, dtype, _backend(backend))
    expected = [x.detach().numpy() for x in _theirs(at, dtype)]
    # A mask that is the same for all keys of a query has no gradient: so the largest of all.
    size = max(np.abs(x[np.isfinite(x)]).max(initial=0.0) for x in expected)
    for mine, theirs in zip(found, expected, strict=True):
        known = np.isfinite(theirs)
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine[known], theirs[known], rtol=0, atol=ORACLE[dtype] * size)
