"""The same kernels in NumPy and SciPy, each written into arrays that are there already."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import erf, expit

from common.case import Case
from common.kernel_tasks import BETA1, BETA2, EPS, LR, RUN_SECONDS, KernelTask

# (inputs, out, scratch): out holds the result.
Kernel = Callable[[list[NDArray[Any]], NDArray[Any], NDArray[Any]], Any]


def _gelu(x: NDArray[Any], out: NDArray[Any]) -> None:
    """x Phi(x), with Phi(x) = (1 + erf(x / sqrt 2)) / 2."""
    np.multiply(x, x.dtype.type(0.5**0.5), out=out)
    erf(out, out=out)
    np.add(out, 1, out=out)
    np.multiply(out, x, out=out)
    np.multiply(out, 0.5, out=out)


def _sgd(w: NDArray[Any], g: NDArray[Any], scratch: NDArray[Any]) -> None:
    np.multiply(g, LR, out=scratch)
    np.subtract(w, scratch, out=w)


_KERNELS: dict[str, Kernel] = {
    "X @ W": lambda a, out, _: np.matmul(a[0], a[1], out=out),
    "X.T @ dY": lambda a, out, _: np.matmul(a[0].T, a[1], out=out),
    "dY @ W.T": lambda a, out, _: np.matmul(a[0], a[1].T, out=out),
    "relu": lambda a, out, _: np.maximum(a[0], 0, out=out),
    "sigmoid": lambda a, out, _: expit(a[0], out=out),
    "tanh": lambda a, out, _: np.tanh(a[0], out=out),
    "gelu": lambda a, out, _: _gelu(a[0], out),
    "sgd": lambda a, out, scratch: _sgd(out, a[1], scratch),
}


class NumpyCase(Case):
    """A kernel called from Python again and again."""

    def __init__(self, task: KernelTask) -> None:
        self._inputs = task.inputs()
        self._out = np.empty_like(self._inputs[0])
        self._scratch = np.empty_like(self._out)
        self.reset()
        self._once()
        start = time.perf_counter()
        self._once()
        self._repeats = max(1, round(RUN_SECONDS / (time.perf_counter() - start)))
        self.units = float(self._repeats)

    def reset(self) -> None:
        """Updates start from the parameters, which are the first input."""
        np.copyto(self._out, self._inputs[0])

    def run(self) -> None:
        """All repetitions."""
        for _ in range(self._repeats):
            self._once()

    def check(self) -> NDArray[Any]:
        """The result of a single call."""
        self.reset()
        self._once()
        return self._out.copy()

    def _once(self) -> None:
        raise NotImplementedError


class StatelessCase(NumpyCase):
    """All but Adam."""

    def __init__(self, task: KernelTask) -> None:
        self._kernel = _KERNELS[task.name]
        super().__init__(task)

    def _once(self) -> None:
        self._kernel(self._inputs, self._out, self._scratch)


class AdamCase(NumpyCase):
    """Adam in place, in the order of arithmetic of torch.optim.Adam."""

    def reset(self) -> None:
        """The start: moments of zero."""
        super().reset()
        self._t = 0
        self._m, self._v = np.zeros_like(self._out), np.zeros_like(self._out)

    def _once(self) -> None:
        w, g, m, v, scratch = self._out, self._inputs[1], self._m, self._v, self._scratch
        self._t += 1
        for moment, decay in ((m, BETA1), (v, BETA2)):
            np.multiply(moment, decay, out=moment)
            np.multiply(g, 1 - decay, out=scratch)
            if moment is v:
                np.multiply(scratch, g, out=scratch)
            np.add(moment, scratch, out=moment)
        np.sqrt(v, out=scratch)
        np.divide(scratch, (1 - BETA2**self._t) ** 0.5, out=scratch)
        np.add(scratch, EPS, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, LR / (1 - BETA1**self._t), out=scratch)
        np.subtract(w, scratch, out=w)


def build(variant: str, task: KernelTask) -> Case:
    """The only variant."""
    return AdamCase(task) if task.name == "adam" else StatelessCase(task)


def versions() -> dict[str, str]:
    """Of NumPy and SciPy."""
    return {"numpy": np.__version__, "scipy": scipy.__version__}
