"""The roof: NumPy's float32 matrix product, `sgemm-512` and the like; one unit is one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.case import Case


class SgemmCase(Case):
    """C = A B for square matrices of size n, again and again."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self._A = rng.standard_normal((n, n), np.float32)
        self._B = rng.standard_normal((n, n), np.float32)
        self._C = np.empty((n, n), np.float32)
        self._calls = max(1, 1024**3 // n**3)
        self.units = 2.0 * n**3 * self._calls

    def run(self) -> None:
        """A few products."""
        for _ in range(self._calls):
            np.matmul(self._A, self._B, out=self._C)


def build(variant: str, task: Any) -> Case:
    """A variant is `sgemm-<n>`; the task does not matter."""
    return SgemmCase(int(variant.removeprefix("sgemm-")))


def versions() -> dict[str, str]:
    """Of NumPy and of the library that multiplies for it."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {"numpy": np.__version__, "numpy blas": f"{blas['name']} {blas['version']}"}
