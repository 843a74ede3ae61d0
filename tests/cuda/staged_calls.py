"""Products whose factors are rounded before, or in each tile, and the devices that tell which: for
the tests on the shim, on the emulator and on the device that counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from numpy.typing import NDArray
from tolerances import assert_same

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda.codegen import staged

LOW = ("bf16", "float16", "tf32")
LAYOUTS = ("nn", "nt", "tn", "tt")
CHECK = gp.Options(verify=False)


@contextmanager
def always(taken: bool = True) -> Iterator[None]:
    """Factors are rounded before whatever is saved; or never."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staged, "LEAST_SAVED", -math.inf if taken else math.inf)
        yield


class Watched:
    """Of a device: keeps the sources that it built."""

    sources: list[str]

    def compile(self, source: str) -> Any:
        self.__dict__.setdefault("sources", []).append(source)
        return super().compile(source)  # type: ignore[misc]


def staged_in(driver: Any) -> bool:
    """Whether a product was compiled whose factors are rounded before."""
    return any("gp::gemm_staged<" in s.split("struct Params")[-1] for s in driver.sources)


def given(layout: str, m: int, n: int, k: int, batch: tuple[int, ...] = ()) -> tuple[Any, Any]:
    """Factors as a layout stores them."""
    rng = np.random.default_rng(m + n + k)
    a, b = (rng.standard_normal((*batch, *s)).astype("f") for s in ((m, k), (k, n)))
    turned = [np.ascontiguousarray(np.swapaxes(x, -1, -2)) for x in (a, b)]
    return (turned[0] if layout[0] == "t" else a, turned[1] if layout[1] == "t" else b)


def product_of(layout: str) -> Callable[[Any, Any], Any]:
    def product(a: Any, b: Any) -> Any:
        left = ops.swapaxes(a, -1, -2) if layout[0] == "t" else a
        return left @ (ops.swapaxes(b, -1, -2) if layout[1] == "t" else b)

    return product


def both(
    make: Callable[[], Any], work: Callable[[Any], Any], precision: str, used: bool = True
) -> list[NDArray[Any]]:
    """What `work` makes on a backend of `make`: the same bits, whether factors are rounded before
    (which is so with `used`) or in each tile.
    """
    found = []
    for taken in (True, False):
        backend = make()
        backend.precision = precision
        with always(taken):
            results = work(backend)
        found.append(results if isinstance(results, tuple) else (results,))
        assert staged_in(backend.driver) == (taken and used)
    for one, other in zip(*found, strict=True):
        assert_same(one, other)
    return [np.asarray(one) for one in found[0]]


def losses(optimizer: str, samples: int = 168) -> Callable[[Any], Any]:
    """A training with batches of 40 and, at the end of an epoch, of 8; weights change each step."""

    def work(backend: Any) -> Any:
        x, y = digits(samples=samples)
        step = classifier_step(OPTIMIZERS[optimizer], mlp(hidden=(64, 40)), backend=backend)
        return step.run(x, y, batch_size=40, epochs=2, seed=1)

    return work
