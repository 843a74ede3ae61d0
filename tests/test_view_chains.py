"""Whatever views lie before an op: every backend runs it, and forward and backward are right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same
from view_chains import READERS, Program, program

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.core.strided import Strided
from gpubp.ops.shape import RESHAPE

ONE, THREE = NumbaBackend(workers=1), NumbaBackend(workers=3)
PLAIN = gp.Options(fuse=False, verify=False)
# Seeds of each reader.
SEEDS = [range(10), pytest.param(range(10, 25), marks=pytest.mark.full)]


def ways(program: Program, *backends: Any) -> None:
    """The result and its gradients are what they are at once, on every backend."""
    value = program.fn(*program.arrays)
    gradients = gp.compile(program.gradient, backend="numpy", options=PLAIN)(*program.arrays)
    for backend in backends:
        found = gp.compile(program.fn, backend=backend)(*program.arrays)
        assert_close(found, value, f"{backend} {program}")
        back = gp.compile(program.gradient, backend=backend)(*program.arrays)
        for a, b in zip(back, gradients, strict=True):
            assert_close(a, b, f"gradient, {backend} {program}")


@pytest.mark.parametrize("seeds", SEEDS, ids=["some", "more"])
@pytest.mark.parametrize("reader", range(len(READERS)), ids=lambda i: READERS[i].__name__[1:])
def test_every_backend_reads_every_view(reader: int, seeds: range) -> None:
    for i in seeds:
        ways(program(reader + i * len(READERS)), "numpy", ONE)


@pytest.mark.parametrize("seeds", SEEDS, ids=["some", "more"])
@pytest.mark.parametrize("reader", range(len(READERS)), ids=lambda i: READERS[i].__name__[1:])
def test_three_workers_agree_bit_for_bit(reader: int, seeds: range) -> None:
    for i in seeds:
        chain = program(reader + i * len(READERS), "float32")
        for fn in (chain.fn, chain.gradient):
            one = gp.compile(fn, backend=ONE)(*chain.arrays)
            three = gp.compile(fn, backend=THREE)(*chain.arrays)
            for a, b in zip(*(v if isinstance(v, tuple) else (v,) for v in (one, three))):
                assert_same(a, b, str(chain))


def test_gradients_are_central_differences() -> None:
    """What the reference itself is held to, for a few elements of each argument."""
    for seed in range(2 * len(READERS)):
        chain = program(seed)
        total = lambda *xs: np.sum(np.sin(np.asarray(chain.fn(*xs))))  # noqa: B023, E731
        found = gp.compile(chain.gradient, backend="numpy")(*chain.arrays)
        floats = [i for i, a in enumerate(chain.arrays) if a.dtype.kind == "f"]
        for position, gradient in zip(floats, found, strict=True):
            flat = chain.arrays[position].reshape(-1)
            at = int(np.random.default_rng(seed).integers(flat.size))
            kept = flat[at]
            ends = []
            for step in (1e-6, -1e-6):
                flat[at] = kept + step
                ends.append(total(*chain.arrays))
            flat[at] = kept
            numeric = (ends[0] - ends[1]) / 2e-6
            assert abs(gradient.reshape(-1)[at] - numeric) <= 1e-6 * (1 + abs(numeric)), str(chain)


def tiled(x: Any, times: tuple[int, ...]) -> Any:
    """`np.tile`, by a broadcast between the axes of x."""
    between = ops.reshape(x, tuple(n for size in x.shape for n in (1, size)))
    wide = tuple(n for pair in zip(times, x.shape, strict=True) for n in pair)
    whole = tuple(k * n for k, n in zip(times, x.shape, strict=True))
    return ops.reshape(ops.broadcast_to(between, wide), whole)


@pytest.mark.parametrize("backend", ["numpy", ONE, THREE], ids=["numpy", "one", "three"])
@pytest.mark.parametrize("ndim", [1, 3, 4, 6])
def test_strides_along_many_axes(ndim: int, backend: Any) -> None:
    """Up to twelve axes that no two can be walked as one."""
    rng = np.random.default_rng(ndim)
    shape, times = tuple(rng.integers(2, 4, ndim)), tuple(rng.integers(2, 3, ndim))
    x = rng.normal(size=shape)
    forms: list[Any] = [
        lambda x: tiled(x, times),
        lambda x: ops.tanh(tiled(x, times)) * tiled(x + 1.0, times),
        lambda x: ops.sum(tiled(ops.square(x), times)),
        lambda x: ops.max(tiled(x, times), 0),
        lambda x: gp.grad(lambda z: ops.sum(ops.sin(tiled(z, times))))(x),
        lambda x: tiled(ops.transpose(x)[::-1], times),
    ]
    for i, form in enumerate(forms):
        expected = gp.compile(form, backend="numpy", options=PLAIN)(x)
        assert_close(gp.compile(form, backend=backend)(x), expected, f"form {i}, {ndim} axes")
    assert_same(gp.compile(forms[0], backend=backend)(x), np.tile(x, times))


@pytest.mark.parametrize("backend", ["numpy", ONE, THREE], ids=["numpy", "one", "three"])
def test_transposes_of_products_of_stacks(backend: Any) -> None:
    """Both operands' batch axes in every order, so that no one stride walks them."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5, 2, 4)), rng.normal(size=(3, 2, 4, 6))

    def product(a: Any, b: Any) -> Any:
        return ops.swapaxes(ops.matmul(ops.transpose(a, (0, 2, 1, 3)), b), -1, -2)

    def turned(a: Any, b: Any) -> Any:
        left = ops.transpose(b, (1, 0, 3, 2))
        return ops.swapaxes(ops.matmul(left, ops.transpose(a, (2, 0, 3, 1))), -1, -2)

    for fn in (product, turned):
        assert_close(gp.compile(fn, backend=backend)(a, b), fn(a, b))


def test_reshapes_are_views_where_numpys_are() -> None:
    """Of slices, transposes and broadcasts: the same elements, and no copy that NumPy spares."""
    rng = np.random.default_rng(0)
    base = np.arange(288)
    counts = {True: 0, False: 0}
    for _ in range(400):
        x = base.reshape([(2, 3, 4, 12), (24, 12), (6, 4, 12), (288,)][rng.integers(4)])
        x = x.transpose(rng.permutation(x.ndim)) if rng.random() < 0.5 else x
        if rng.random() < 0.7:
            x = x[tuple(slice(rng.integers(2), None, [1, 1, 2][rng.integers(3)]) for _ in x.shape)]
        x = np.broadcast_to(x, (2, *x.shape)) if rng.random() < 0.2 else x
        shape = _factors(x.size, rng)
        y = x.view()
        try:
            y.shape = shape
        except AttributeError:
            y = None
        offset = (x.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // 8
        source = Strided(offset, x.shape, tuple(s // 8 for s in x.strides))
        found = RESHAPE.view(source, shape, shape=shape)
        assert (found is None) == (y is None)
        counts[found is None] += 1
        if found is not None:
            assert found.shape == shape
            strides = [8 * s for s in found.strides]
            made = np.lib.stride_tricks.as_strided(base[found.offset :], shape, strides)
            np.testing.assert_array_equal(made, y)
    assert min(counts.values()) > 50


def _factors(size: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Some shape of as many elements."""
    found = []
    while size > 1:
        found.append(int(rng.choice([n for n in range(2, size + 1) if size % n == 0])))
        size //= found[-1]
    for _ in range(rng.integers(3)):
        found.insert(rng.integers(len(found) + 1), 1)
    return tuple(found)
