"""The kernels that are measured, with their inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import unknown_name

SIZES = (64, 128, 256, 512, 1024)
DTYPES = ("float32", "float64")
ELEMENTS = 100_000
PARAMETERS = 1_000_000
LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8
# Links of the chain of tiny instructions that meets at barriers.
CHAIN = 8
# A timed run of a kernel lasts about this long.
RUN_SECONDS = 0.01

_FLOPS, _ELEMENTS = "GFLOP/s", "M elements/s"
GROUPS = {
    "gemm": ("X @ W", "X.T @ dY", "dY @ W.T"),
    "activations": ("relu", "sigmoid", "tanh", "gelu"),
    "updates": ("sgd", "adam"),
    "barrier": ("barrier",),
}


@dataclass(frozen=True)
class KernelTask:
    """One kernel on one size.

    Attributes:
        group: a key of GROUPS.
        name: one of the group's kernels.
        size: n of n x n matrices, else the number of elements.
        dtype: of all arrays.
    """

    group: str
    name: str
    size: int
    dtype: str

    @property
    def work(self) -> float:
        """Operations of a product, else elements; of one call."""
        return 2.0 * self.size**3 if self.group == "gemm" else float(self.size)

    @property
    def unit(self) -> tuple[str, float]:
        """How the rate is shown: its name, and how much of `work` it is."""
        return (_FLOPS, 1e9) if self.group == "gemm" else (_ELEMENTS, 1e6)

    def __str__(self) -> str:
        return f"{self.name} {self.size} {self.dtype}"

    def inputs(self) -> list[NDArray[Any]]:
        """Two matrices; x; or the parameters and their gradients. The same in every process."""
        rng = np.random.default_rng(4)
        shape = (self.size, self.size) if self.group == "gemm" else (self.size,)
        count = 1 if self.group == "activations" else 2
        return [rng.standard_normal(shape).astype(self.dtype) for _ in range(count)]


def find_tasks(groups: list[str]) -> list[KernelTask]:
    """Every task of some groups.

    Raises:
        UnknownNameError: no such group.
    """
    tasks = []
    for group in groups:
        if group not in GROUPS:
            raise unknown_name("row", group, GROUPS)
        dtypes = DTYPES if group == "gemm" else DTYPES[:1]
        sizes = {"gemm": SIZES, "updates": (PARAMETERS,), "barrier": (64,)}.get(group, (ELEMENTS,))
        tasks += [
            KernelTask(group, name, size, dtype)
            for name in GROUPS[group]
            for dtype in dtypes
            for size in sizes
        ]
    return tasks
