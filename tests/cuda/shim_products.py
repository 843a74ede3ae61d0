"""cuBLASLt for the tests' device: what its documentation says, computed with NumPy.

Comes in: problems and addresses in the shim's memory. Goes out: the same products, by columns, with
transposes, leading dimensions, strides of batches, epilogues, alpha and beta from the device's
memory. What cuBLASLt refuses is refused: types it has no kernels for, too small a workspace or
leading dimension. What it takes on trust is checked: addresses that are less aligned than was said,
or outside of memory. The documentation meant is that of cublasLtMatmul() and the comments of
cublasLt.h.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shim_backend import shim_backend
from shim_build import runtime
from shim_driver import ShimDriver

from gpubp.backends.cuda import CupyBackend, autotune, tuning_record
from gpubp.backends.cuda.codegen import encode_product
from gpubp.backends.cuda.products import ALIGNED, SIZES, Addresses, Matrix, Plan, Problem, Work
from gpubp.errors import BackendError

# "Supported types": compute -> dtypes of factors and result; the bias has the result's.
KINDS = {
    "float32": {("float32", "float32"), ("bfloat16", "float32"), ("float16", "float32")},
    "tf32": {("float32", "float32")},
    "float64": {("float64", "float64")},
}
PLAN_BYTES = 64
STORED = {"float32": "f4", "float64": "f8", "bfloat16": "u2", "float16": "f2"}
Clock = Callable[[Counter[bytes]], float]


class MisuseError(AssertionError):
    """What a GPU answers with wrong results or an illegal access, if it notices at all."""


def library_wins(launched: Counter[bytes]) -> float:
    """A clock on which the library takes a second and our own kernels take two."""
    return 1.0 if launched else 2.0


def own_wins(launched: Counter[bytes]) -> float:
    """A clock on which the library is slower."""
    return 3.0 - library_wins(launched)


class ShimProducts:
    """A `Products` on the CPU.

    Args:
        driver: whose memory and order of work.
        clock: seconds of work, from how often it launched each algorithm.
        plans: how many ways there are to compute a problem. The i-th adds k in i + 1 pieces, in
            order, and needs i KiB of workspace.
        refuse: problems for which there is no plan.
        version: of the library.

    Attributes:
        launched: problem and number of the plan -> launches, replays included.
    """

    workspace = 1 << 16

    def __init__(
        self,
        driver: ShimDriver,
        clock: Clock = library_wins,
        plans: int = 1,
        refuse: Callable[[Problem], bool] = lambda _: False,
        version: str = "cuBLASLt 1",
    ) -> None:
        self._driver, self._clock, self._plans, self._refuse = driver, clock, plans, refuse
        self.version = version
        self.launched: Counter[tuple[Problem, int]] = Counter()
        self.measured = 0
        self._within: Counter[bytes] = Counter()

    def plans(self, problem: Problem, most: int) -> list[Plan]:
        """As many as there are, the one with the fewest pieces first."""
        self._driver._not_while_recording("plans")
        _check(problem)
        if self._refuse(problem):
            return []
        return [self._plan(i) for i in range(min(most, self._plans))]

    def restored(self, problem: Problem, algorithm: bytes) -> Plan | None:
        """The plan, if this version has it."""
        plan = self._plan(algorithm[0]) if len(algorithm) == PLAN_BYTES else None
        known = plan is not None and plan.algorithm == algorithm and algorithm[0] < self._plans
        return plan if known and not self._refuse(problem) else None

    def _plan(self, number: int) -> Plan:
        return Plan(bytes([number]) + self.version.encode().ljust(PLAN_BYTES - 1), number << 10)

    def bound(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> Work:
        """What launches or records the product."""
        self._driver._not_while_recording("descriptors")
        _check(problem)
        self._check_addresses(problem, plan, at, workspace)
        return lambda: self._driver.enqueue(lambda: self._run(problem, plan, at, workspace))

    def seconds(self, work: Work) -> float:
        """What the clock says."""
        self._driver._not_while_recording("events")
        self.measured += 1
        self._within = Counter()
        work()
        return self._clock(self._within)

    def _run(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> None:
        number = plan.algorithm[0]
        self.launched[problem, number] += 1
        self._within[plan.algorithm] += 1
        self._array(workspace, plan.workspace, "u1")[...] = 0xFF  # nobody may rely on what it holds
        a, b = (self._matrix(m, at_, problem) for m, at_ in ((problem.a, at.a), (problem.b, at.b)))
        a = a.swapaxes(1, 2) if problem.transpose_a else a
        b = b.swapaxes(1, 2) if problem.transpose_b else b
        product = _summed(*(_widened(x, problem) for x in (a, b)), number + 1)
        out = self._view(problem.d, at.d, problem)
        scale = "f8" if problem.compute == "float64" else "f4"
        if problem.update:
            alpha, beta = (self._array(p, 1, scale)[0] for p in (at.alpha, at.beta))
            product = alpha * product + beta * out
        if "bias" in problem.epilogue:
            bias = self._array(at.bias, problem.d.rows, STORED[problem.d.dtype])
            product = product + bias[:, None]
        if "relu" in problem.epilogue:
            product = np.maximum(product, 0)
        out[...] = product

    def _check_addresses(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> None:
        matrices = (problem.a, problem.b, problem.d)
        for name, matrix, place in zip("ABD", matrices, (at.a, at.b, at.d)):
            if not place or place % matrix.alignment:
                raise MisuseError(f"{name} at {place:#x}, said to be {matrix.alignment}-aligned")
        if plan.workspace > self.workspace:
            _refuse(f"{plan.workspace} bytes of workspace are needed")
        if workspace % ALIGNED or not runtime().gp_holds(workspace, self.workspace):
            raise MisuseError(f"no workspace of {self.workspace} bytes at {workspace:#x}")
        if ("bias" in problem.epilogue) != bool(at.bias) or at.bias % 16:
            raise MisuseError(f"the bias is at {at.bias:#x}, the epilogue {problem.epilogue}")
        if problem.update != bool(at.alpha and at.beta):
            raise MisuseError("alpha and beta are read on the device by updates alone")

    def _array(self, address: int, count: int, kind: str) -> NDArray[Any]:
        """A vector in the device's memory."""
        dtype = np.dtype(kind)
        if not runtime().gp_holds(address, count * dtype.itemsize):
            raise MisuseError(f"cuBLASLt would touch {count} {dtype} outside of memory")
        held = (np.ctypeslib.ctypes.c_char * (count * dtype.itemsize)).from_address(address)
        return np.frombuffer(held, dtype)

    def _view(self, matrix: Matrix, address: int, problem: Problem) -> NDArray[Any]:
        """All matrices of a batch, by rows and columns: (batches, rows, columns)."""
        shape = (problem.batches, matrix.rows, matrix.columns)
        steps = (matrix.batch if problem.batches > 1 else 0, 1, matrix.leading)
        last = sum((n - 1) * s for n, s in zip(shape, steps)) + 1
        flat = self._array(address, last, STORED[matrix.dtype])
        strides = tuple(s * flat.itemsize for s in steps)
        return np.lib.stride_tricks.as_strided(flat, shape, strides)

    def _matrix(self, matrix: Matrix, address: int, problem: Problem) -> NDArray[Any]:
        found = self._view(matrix, address, problem)
        if matrix.dtype == "bfloat16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found


def _widened(x: NDArray[Any], problem: Problem) -> NDArray[Any]:
    """A factor as it is multiplied: exact in float64; TF32 keeps ten bits of fraction."""
    if problem.compute == "tf32":
        bits = np.ascontiguousarray(x).view(np.uint32)
        special = bits & 0x7F800000 == 0x7F800000
        x = np.where(special, bits, bits + 0x1000 & 0xFFFFE000).astype(np.uint32).view(np.float32)
    return x.astype(np.float64)


def _summed(a: NDArray[Any], b: NDArray[Any], pieces: int) -> NDArray[Any]:
    """The product, with k in pieces that are added in order."""
    parts = [
        np.matmul(p, q)
        for p, q in zip(np.array_split(a, pieces, axis=2), np.array_split(b, pieces, axis=1))
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _check(problem: Problem) -> None:
    """Refuse what conflicts, or has no kernel."""
    a, b, d = problem.a, problem.b, problem.d
    if a.dtype != b.dtype or (a.dtype, d.dtype) not in KINDS[problem.compute]:
        _refuse(f"there is no kernel for {problem}")
    rows, inner = (a.columns, a.rows) if problem.transpose_a else (a.rows, a.columns)
    depth, columns = (b.columns, b.rows) if problem.transpose_b else (b.rows, b.columns)
    if (rows, inner, columns) != (d.rows, depth, d.columns) or min(rows, inner, columns) < 1:
        _refuse(f"the sizes of {problem} do not fit together")
    for matrix in (a, b, d):
        size = SIZES[matrix.dtype]
        if matrix.leading < matrix.rows:
            _refuse(f"a leading dimension of {matrix.leading} for {matrix.rows} rows")
        if matrix.alignment not in (2, 4, 8, 16, 32, 64, 128, 256) or matrix.alignment % size:
            _refuse(f"an alignment of {matrix.alignment} for {matrix.dtype}")
    if problem.batches > 1 and d.batch < d.leading * (d.columns - 1) + d.rows:
        _refuse("results of a batch overlap")
    if problem.update and problem.epilogue != "none":
        _refuse("this backend has no such product")


def _refuse(reason: str) -> None:
    raise BackendError(f"cuBLASLt: CUBLAS_STATUS_INVALID_VALUE: {reason}")


def send_everything(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No product is too small for the library, and choices are not those of another test."""
    monkeypatch.setattr(encode_product, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(tuning_record, "cache_root", lambda: folder)
    monkeypatch.setattr(autotune, "ROUNDS", 1)  # of measuring by a clock that never varies


def library_backend(order: str = "random", **options: Any) -> CupyBackend:
    """A backend on a new device that has the library.

    Args:
        order: of threads and blocks.
        **options: for `ShimProducts` (clock, plans, refuse, version); `kind`, a class to take
            instead of it; `precision`; the rest for `ShimDriver`.
    """
    names = ("clock", "plans", "refuse", "version")
    chosen = {name: options.pop(name) for name in names if name in options}
    kind = options.pop("kind", ShimProducts)
    precision = options.pop("precision", "float32")
    driver = ShimDriver(order, **{"seed": 1, **options})
    driver.products = kind(driver, **chosen)
    backend = shim_backend(driver=driver)
    backend.precision = precision
    return backend


def launches_of(backend: CupyBackend) -> dict[Problem, int]:
    """How often the library computed each problem."""
    found: Counter[Problem] = Counter()
    for (problem, _), count in backend.driver.products.launched.items():  # type: ignore[union-attr]
        found[problem] += count
    return found
