"""Decompositions, distances and samples: definitions, differences, second order, backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import ArgumentError, DataError, GradientError, ShapeError

RNG = np.random.default_rng(0)
SHAPES = [(4, 4), (5, 3), (3, 5), (2, 4, 3)]
WEIGHTS = RNG.standard_normal(400)


def weighed(*arrays: Any) -> Any:
    """A number that depends on every element."""
    flat = [ops.reshape(a, (-1,)) for a in arrays]
    return sum(ops.sum(ops.square(a) * WEIGHTS[: a.shape[0]] + a * 0.3) for a in flat)


FUNCTIONS: dict[str, Any] = {
    "svd": lambda x: weighed(*ops.svd(x, full_matrices=False)),
    "qr": lambda x: weighed(*ops.qr(x)),
    "r": lambda x: weighed(ops.qr(x, "r")),
    "pinv": lambda x: weighed(ops.pinv(x)),
    "eigh": lambda x: weighed(*ops.eigh(ops.matmul(x, ops.swapaxes(x, -1, -2)) + x[..., :, :1])),
    "cdist": lambda x: weighed(ops.cdist(x, x * 0.5 + 1.0, 3.0)),
    "pdist": lambda x: weighed(ops.pdist(x if len(x.shape) == 2 else x[0])),
}


def differences(fn: Any, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    found = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        found[i] = (fn(up) - fn(down)) / (2 * step)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_of_both_orders_are_those_of_differences(name: str, shape: Any) -> None:
    x, fn = RNG.standard_normal(shape) + 0.1, FUNCTIONS[name]
    slope = gp.grad(fn)
    np.testing.assert_allclose(slope(x), differences(fn, x), 1e-5, 1e-5)
    again = lambda x: ops.sum(slope(x) * WEIGHTS[: x.size].reshape(x.shape))  # noqa: E731
    np.testing.assert_allclose(gp.grad(again)(x), differences(again, x), 1e-3, 1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decompositions_multiply_to_the_matrix(backend: str, dtype: str) -> None:
    for shape in SHAPES:
        x = RNG.standard_normal(shape).astype(dtype)

        def fn(x: Any) -> Any:
            u, s, v = ops.svd(x, False)
            q, r = ops.qr(x)
            values, vectors = ops.eigh(x @ ops.swapaxes(x, -1, -2))
            turned = ops.swapaxes(vectors, -1, -2)
            inverse = ops.pinv(x)
            return (
                (u * ops.expand_dims(s, -2)) @ v,
                q @ r,
                (vectors * ops.expand_dims(values, -2)) @ turned,
                x @ inverse @ x,
            )

        first, second, third, fourth = gp.compile(fn, backend=backend)(x)
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        for found in (first, second, fourth):
            np.testing.assert_allclose(found, x, tolerance, tolerance)
        np.testing.assert_allclose(third, x @ x.swapaxes(-1, -2), tolerance, tolerance)


def test_full_matrices_have_gradients_where_they_are_determined() -> None:
    square = RNG.standard_normal((3, 3))
    full, thin = (gp.grad(lambda x, f=f: weighed(*ops.svd(x, f)))(square) for f in (True, False))
    assert_close(full, thin)
    assert ops.svd(RNG.standard_normal((4, 2)))[0].shape == (4, 4)
    with pytest.raises(GradientError, match="full_matrices=False"):
        gp.grad(lambda x: weighed(*ops.svd(x)))(square[:2])


def test_parts_and_indices_are_numpys() -> None:
    x = np.arange(14.0).reshape(7, 2)
    for cut in (3, [2, 5], [-2, 9], [4, 2]):
        found, wanted = ops.tensor_split(x, cut), np.array_split(x, cut)
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)
    assert_same(ops.tril_indices(3, 4, 1), np.stack(np.tril_indices(3, 1, 4)))
    assert_same(ops.triu_indices(3, 4, -1), np.stack(np.triu_indices(3, -1, 4)))


def test_distances_of_equal_vectors_have_no_gradient() -> None:
    x = np.ones((3, 2))
    assert_close(gp.grad(lambda x: ops.sum(ops.cdist(x, x)))(x), np.zeros((3, 2)))
    assert_close(ops.pdist(np.array([[0.0, 0], [3, 4], [0, 1]])), np.array([5, 1, np.sqrt(18)]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_of_classes_follow_their_probabilities(backend: str) -> None:
    gp.manual_seed(0)
    logits = np.log(np.array([0.2, 0.5, 0.3]))
    many = np.broadcast_to(logits[:, None], (3, 20_000)).copy()
    fn = gp.compile(lambda x: ops.gumbel_softmax(x, 0.5, hard=True, dim=0), backend=backend)
    found = fn(many)
    assert set(np.unique(found).round(12)) == {0.0, 1.0} and np.allclose(found.sum(0), 1)
    np.testing.assert_allclose(found.mean(1), [0.2, 0.5, 0.3], atol=0.02)
    slope = gp.grad(lambda x: ops.sum(ops.gumbel_softmax(x, hard=True)[:, 0]))(many[:, :5].T)
    assert (np.abs(slope).sum(1) > 0).all()


def test_slopes_are_drawn_in_training_and_are_the_mean_after_it() -> None:
    gp.manual_seed(0)
    layer, x = nn.RReLU(0.1, 0.5), np.linspace(-3, 3, 1000)
    found = layer(x)[:500] / x[:500]
    assert found.min() >= 0.1 and found.max() < 0.5 and found.std() > 0.08
    assert_same(layer(x)[500:], x[500:])
    layer.eval()
    assert_close(layer(x), np.where(x >= 0, x, x * 0.3))


def test_what_does_not_fit_is_refused() -> None:
    x = np.ones((3, 2))
    for fn, error, message in (
        (lambda: ops.svd(np.ones(3)), ShapeError, "expected matrices"),
        (lambda: ops.eigh(x), ShapeError, "square"),
        (lambda: ops.pinv(x, "small"), DataError, "rcond must be finite"),
        (lambda: ops.pinv(x, -1.0), DataError, "rcond must be finite"),
        (lambda: ops.cdist(x, np.ones((2, 3))), ShapeError, "width"),
        (lambda: ops.pdist(x, -1.0), ArgumentError, "at least 0"),
        (lambda: ops.tensor_split(x, 0), ArgumentError, "at least 1"),
        (lambda: ops.gumbel_softmax(x, 0.0), DataError, "above 0"),
        (lambda: nn.RReLU(0.5, 0.1), DataError, "above upper"),
        (lambda: ops.triu_indices(-1, 2), ShapeError, "at least 0"),
    ):
        with pytest.raises(error, match=message):
            fn()


def test_no_matrices_at_all_have_decompositions_of_their_shapes() -> None:
    x = np.zeros((0, 2, 4, 3))
    for found in (ops.qr(x), gp.compile(ops.qr)(x)):
        assert [f.shape for f in found] == [(0, 2, 4, 3), (0, 2, 3, 3)]
    assert [f.shape for f in ops.svd(x, False)] == [(0, 2, 4, 3), (0, 2, 3), (0, 2, 3, 3)]


def test_similarity_along_an_axis_that_one_of_two_repeats() -> None:
    a, b = RNG.standard_normal((1, 2, 3)), RNG.standard_normal((2, 1, 3))
    wide = [np.broadcast_to(x, (2, 2, 3)) for x in (a, b)]
    for dim in (-3, -2, -1):
        norms = [np.linalg.norm(x, axis=dim) for x in wide]
        wanted = (wide[0] * wide[1]).sum(dim) / norms[0] / norms[1]
        assert_close(nn.CosineSimilarity(dim)(a, b), wanted)
    assert_close(nn.CosineSimilarity(0)(a[0], b), nn.CosineSimilarity(0)(wide[0], wide[1]))
