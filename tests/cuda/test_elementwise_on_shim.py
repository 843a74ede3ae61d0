"""Elementwise kernels: vectors of 16 bytes and what is left over; CUDA source of users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from numpy.typing import NDArray
from shim_backend import shim_backend
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import ops, optim
from gpubp.backends.cuda.codegen import encode
from gpubp.backends.cuda.launch import Context, Workspace
from gpubp.errors import BackendError
from gpubp.nn import Parameter

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


def _sources(program: gp.program.Program) -> str:
    """All CUDA text of a program, every buffer at address 0."""
    context = Context(lambda _: (0, None), 0, 0, 0, 0, 4, Workspace())
    return "".join(x.source for part in program.parts for x in encode.encode(part, context))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 1023, 1030])
def test_vectors_and_what_is_left(size: int, dtype: str) -> None:
    start = np.random.default_rng(size).standard_normal(size).astype(dtype)

    def trained(backend: Any) -> tuple[NDArray[Any], str]:
        w = Parameter(start, dtype=dtype)
        step = gp.compile_step(
            lambda x: ops.sum(ops.square(w)) * ops.mean(x),
            optim.Adam([w], lr=0.1, weight_decay=0.01),
            backend=backend,
        )
        for _ in range(3):
            step(np.ones(2, dtype))
        assert step.program is not None
        return w.numpy(), _sources(step.program)

    found, text = trained(shim_backend("random"))
    ctype = {"float32": "float", "float64": "double"}[dtype]
    assert (f"gp::Vector<{ctype}" in text) == (size > 1)
    assert_close(found, trained("numpy")[0])


CUBE = "template <class T> __device__ void cuda_cube(long long i, const T* x, T* y, double scale) "


def _cube(body: str) -> Any:
    return gp.custom_op(
        "cuda_cube",
        lambda x, scale=1.0: (scale * x**3).astype(x.dtype),
        vjp=lambda g, y, x, scale=1.0: g * (3.0 * scale) * ops.square(x),
        cuda=CUBE + body,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_custom_op_with_cuda_source(dtype: str) -> None:
    cube = _cube("{ y[i] = T(scale) * x[i] * x[i] * x[i]; }")
    x = np.linspace(-2, 2, 301).astype(dtype)
    backend = shim_backend("reverse")
    out = gp.compile(lambda v: cube(v, scale=2.0) + 1.0, backend=backend)(x)
    assert_close(out, 2 * x**3 + 1)
    grad = gp.compile(gp.grad(lambda v: ops.sum(cube(v))), backend=backend)(x)
    assert_close(grad, 3 * x**2)


def test_the_cuda_source_is_what_runs() -> None:
    wrong = _cube("{ y[i] = T(7); }")
    out = gp.compile(lambda v: wrong(v, scale=1.0), backend=shim_backend())(np.ones(5, np.float32))
    assert_same(out, np.full(5, 7, np.float32))


def test_cuda_source_that_does_not_compile() -> None:
    broken = _cube("{ y[i] = no_such_thing; }")
    with pytest.raises(BackendError, match="no_such_thing"):
        gp.compile(lambda v: broken(v, scale=1.0), backend=shim_backend())(np.ones(5, np.float32))
