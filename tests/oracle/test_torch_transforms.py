"""gp.jvp, jacobians, hessian, vmap, functional_call, checkpoint: against torch.func and JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

import gpubp as gp
from gpubp import nn, ops

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
T = torch.func
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle
RNG = np.random.default_rng(0)
X, W, V = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 5)), RNG.normal(size=(3, 4))

# A function of x (3, 4) and w (4, 5): ours, torch's.
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "tanh": (lambda x, w: ops.tanh(x @ w).sum(axis=1), lambda x, w: torch.tanh(x @ w).sum(1)),
    "softmax": (lambda x, w: ops.softmax(x @ w), lambda x, w: torch.softmax(x @ w, -1)),
    "log_softmax": (
        lambda x, w: ops.log_softmax(x @ w, 0),
        lambda x, w: torch.log_softmax(x @ w, 0),
    ),
    "max": (lambda x, w: (x @ w).max(axis=1) * x[:, 0], lambda x, w: (x @ w).amax(1) * x[:, 0]),
    "cut": (
        lambda x, w: ops.concat([x[1:, ::2], w[:2, 1:3]]) ** 2,
        lambda x, w: torch.cat([x[1:, ::2], w[:2, 1:3]]) ** 2,
    ),
    "gather": (
        lambda x, w: ops.gather(w, np.array([[0, 3], [1, 1]])) * x.sum(),
        lambda x, w: w[torch.tensor([[0, 3], [1, 1]])] * x.sum(),
    ),
    "activations": (
        lambda x, w: ops.gelu(x) @ ops.sigmoid(w) - ops.silu(x @ w),
        lambda x, w: (
            torch.nn.functional.gelu(x) @ torch.sigmoid(w) - torch.nn.functional.silu(x @ w)
        ),
    ),
    "norm": (
        lambda x, w: nn.functional.layer_norm(x @ w, (5,)),
        lambda x, w: torch.nn.functional.layer_norm(x @ w, (5,)),
    ),
}


def _t(value: Any) -> Any:
    return torch.tensor(value)


def _agree(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            _agree(a, b)
        return
    expected = theirs.detach().numpy()
    largest = max(float(np.abs(expected).max(initial=0.0)), 1.0)
    np.testing.assert_allclose(
        ours, expected, rtol=0, atol=ORACLE[str(expected.dtype)] * largest, strict=True
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_two_arguments(name: str) -> None:
    f, g = FUNCTIONS[name]
    _agree(gp.jvp(f, (X, W), (V, W)), T.jvp(g, (_t(X), _t(W)), (_t(V), _t(W))))
    for ours, theirs in ((gp.jacrev, T.jacrev), (gp.jacfwd, T.jacfwd)):
        _agree(gp.compile(ours(f, (0, 1)))(X, W), theirs(g, (0, 1))(_t(X), _t(W)))
    one, other = lambda x, w: (f(x, w) ** 2).sum(), lambda x, w: (g(x, w) ** 2).sum()
    _agree(gp.compile(gp.hessian(one, (0, 1)))(X, W), T.hessian(other, (0, 1))(_t(X), _t(W)))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dims", [(0, None), (None, 2), (1, 0)])
def test_mapped_functions_and_their_gradients(name: str, dims: Any) -> None:
    f, g = FUNCTIONS[name]
    args = [
        a if d is None else np.moveaxis(RNG.normal(size=(6, *a.shape)), 0, d)
        for a, d in zip((X, W), dims)
    ]
    tensors = [_t(a) for a in args]
    _agree(gp.compile(gp.vmap(f, dims))(*args), T.vmap(g, dims)(*tensors))
    one, other = lambda x, w: (f(x, w) ** 2).sum(), lambda x, w: (g(x, w) ** 2).sum()
    _agree(
        gp.compile(gp.vmap(gp.grad(one, (0, 1)), dims))(*args),
        T.vmap(T.grad(other, (0, 1)), dims)(*tensors),
    )


def _networks(module: Any) -> dict[str, Any]:
    return {
        "mlp": module.Sequential(module.Linear(16, 8), module.Tanh(), module.Linear(8, 3)),
        "cnn": module.Sequential(
            module.Unflatten(1, (1, 4, 4)),
            module.Conv2d(1, 4, 3, padding=1),
            module.ReLU(),
            module.MaxPool2d(2),
            module.Conv2d(4, 6, 2, groups=2),
            module.GroupNorm(2, 6),
            module.Flatten(),
            module.Linear(6, 3),
        ),
        "norm": module.Sequential(module.LayerNorm(16), module.GELU(), module.Linear(16, 3)),
    }


@pytest.mark.parametrize("name", ["mlp", "cnn", "norm"])
def test_gradients_of_single_samples(name: str) -> None:
    ours, theirs = _networks(nn)[name], _networks(torch.nn)[name]
    theirs.load_state_dict({k: _t(v) for k, v in ours.state_dict().items()})
    x = RNG.normal(size=(10, 16)).astype(np.float32)
    y = RNG.integers(0, 3, 10)

    def loss(state: Any, x: Any, y: Any) -> Any:
        return nn.functional.cross_entropy(nn.functional_call(ours, state, (x[None],)), y[None])

    def their_loss(state: Any, x: Any, y: Any) -> Any:
        out = T.functional_call(theirs, state, (x[None],))
        return torch.nn.functional.cross_entropy(out, y[None])

    state = {k: v.detach() for k, v in theirs.named_parameters()}
    expected = T.vmap(T.grad(their_loss), (None, 0, 0))(state, _t(x), _t(y))
    for each in (
        gp.vmap(gp.grad(loss), (None, 0, 0)),
        gp.compile(gp.vmap(gp.grad(loss), (None, 0, 0))),
    ):
        found = each(ours.state_dict(), x, y)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            _agree(found[key], value)


def test_the_same_with_jax() -> None:
    jax = pytest.importorskip("jax", reason="needs JAX: pip install jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    f = lambda p, x: ops.tanh(x @ p["w"]).sum() * ops.exp(p["b"]).sum()  # noqa: E731
    g = lambda p, x: jnp.tanh(x @ p["w"]).sum() * jnp.exp(p["b"]).sum()  # noqa: E731
    p, many = {"w": W, "b": W[0]}, RNG.normal(size=(6, 3, 4))
    pairs = [
        (gp.hessian(f)(p, X), jax.hessian(g)(p, X)),
        (gp.vmap(gp.hessian(f), (None, 0))(p, many), jax.vmap(jax.hessian(g), (None, 0))(p, many)),
        (gp.jacfwd(gp.checkpoint(f))(p, X), jax.jacfwd(jax.checkpoint(g))(p, X)),
        (gp.grad(gp.checkpoint(f))(p, X), jax.grad(jax.checkpoint(g))(p, X)),
        (
            gp.vmap(lambda v: gp.jvp(lambda x: f(p, x), (X,), (v,)))(many)[1],
            jax.vmap(lambda v: jax.jvp(lambda x: g(p, x), (X,), (v,)))(many)[1],
        ),
    ]
    for ours, theirs in pairs:
        flat, _ = jax.tree.flatten(theirs)
        mine, _ = jax.tree.flatten(ours)
        assert len(mine) == len(flat)
        for a, b in zip(mine, flat):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
