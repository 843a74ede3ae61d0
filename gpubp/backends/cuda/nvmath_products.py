"""cuBLASLt as a library of products, through the bindings of nvmath-python; see `products.py`.

Like the drivers, this runs on a GPU only. Descriptors are made once for each launch of a program
and destroyed with it; a launch itself is one call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from gpubp.backends.cuda.nvmath_descriptors import Descriptors, bindings, scalars
from gpubp.backends.cuda.products import PIP, Addresses, Plan, Problem, Work, setting
from gpubp.core.store import address_of
from gpubp.errors import BackendError

# From Hopper on 32 MiB, as NVIDIA advises for cuBLAS there; less before.
WORKSPACE, WORKSPACE_FROM_90 = 8 << 20, 32 << 20


def describe() -> str:
    """For `gpubp info`: the library's version, or why it is not used; never raises."""
    try:
        if setting() == "0":
            return "not used: GPUBP_CUBLASLT is 0"
        return f"{bindings()[0].get_version()}"
    except Exception as err:
        hint = "" if PIP in str(err) else f": {PIP}"
        return f"not used: {err}{hint}"


class NvmathProducts:
    """cuBLASLt on one device and stream.

    Args:
        device: entered around each call: the calling thread works on the device there.
        stream: the handle of the driver's stream.
        architecture: of the device, such as "sm_90".
        seconds: how long some work takes on that stream.

    Raises:
        BackendError: the library cannot be used; says why, and what to install.
    """

    def __init__(
        self,
        device: AbstractContextManager[Any],
        stream: int,
        architecture: str,
        seconds: Callable[[Work], float],
    ) -> None:
        self._lt, self._cublas, self._nvmath = bindings()
        self._device, self._stream, self._seconds = device, stream, seconds
        newer = int(architecture.removeprefix("sm_")) >= 90
        self.workspace = WORKSPACE_FROM_90 if newer else WORKSPACE
        try:
            with device:
                self._handle = self._lt.create()
            self.version = f"cuBLASLt {self._lt.get_version()}"
        except Exception as err:  # a missing library has an error type of its own in the bindings
            raise BackendError(f"cuBLASLt cannot be used ({err}): {PIP}") from err
        # Not at the interpreter's end: the device's context may be gone by then.
        weakref.finalize(self, self._lt.destroy, self._handle).atexit = False

    def plans(self, problem: Problem, most: int) -> list[Plan]:
        lt = self._lt
        found = np.zeros(most, lt.matmul_heuristic_result_dtype)
        count = np.zeros(1, np.int32)
        made = Descriptors(self._lt, self._cublas, self._nvmath, problem)
        try:
            preference = made.preference(problem, self.workspace)
            with self._device:
                lt.matmul_algo_get_heuristic(
                    *(self._handle, made.operation, made.a, made.b, made.d, made.d, preference),
                    *(most, address_of(found), address_of(count)),
                )
        except lt.cuBLASLtError as err:
            if int(err.status) == int(self._cublas.Status.NOT_SUPPORTED):
                return []
            raise BackendError(f"cuBLASLt has no plan for {problem}: {err}") from err
        good = [r for r in found[: count[0]] if int(r["state"]) == 0]
        plans = [Plan(r["algo"].tobytes(), int(r["workspace_size"])) for r in good]
        return [p for p in plans if self._repeatable(p.algorithm)]

    def restored(self, problem: Problem, algorithm: bytes) -> Plan | None:
        lt = self._lt
        if len(algorithm) != lt.matmul_algo_dtype.itemsize or not self._repeatable(algorithm):
            return None
        result = np.zeros(1, lt.matmul_heuristic_result_dtype)
        held = np.frombuffer(algorithm, np.uint8)
        made = Descriptors(self._lt, self._cublas, self._nvmath, problem)
        try:
            with self._device:
                lt.matmul_algo_check(
                    *(self._handle, made.operation, made.a, made.b, made.d, made.d),
                    *(address_of(held), address_of(result)),
                )
        except lt.cuBLASLtError:
            return None
        needed = int(result[0]["workspace_size"])
        fits = int(result[0]["state"]) == 0 and needed <= self.workspace
        return Plan(algorithm, needed) if fits else None

    def _repeatable(self, algorithm: bytes) -> bool:
        """It adds up the pieces of k, if there are several, in a step of its own, in order."""
        lt = self._lt
        scheme, size = np.zeros(1, np.uint32), np.zeros(1, np.uint64)
        held = np.frombuffer(algorithm, np.uint8)
        attribute = lt.MatmulAlgoConfigAttribute.REDUCTION_SCHEME
        lt.matmul_algo_config_get_attribute(
            *(address_of(held), attribute, address_of(scheme), scheme.nbytes, address_of(size))
        )
        schemes = lt.ReductionScheme
        return int(scheme[0]) in (int(schemes.NONE), int(schemes.COMPUTE_TYPE))

    def bound(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> Work:
        lt, handle, device, stream = self._lt, self._handle, self._device, self._stream
        made = Descriptors(lt, self._cublas, self._nvmath, problem, at.bias)
        numbers = scalars(problem)
        alpha, beta = (at.alpha, at.beta) if problem.update else (
            address_of(numbers[:1]), address_of(numbers[1:]))  # fmt: skip
        algorithm = np.frombuffer(plan.algorithm, np.uint8)
        arguments = (
            *(handle, made.operation, alpha, at.a, made.a, at.b, made.b, beta),
            *(at.d, made.d, at.d, made.d, address_of(algorithm), workspace, self.workspace),
        )

        def launch(kept: tuple[Any, ...] = (made, numbers, algorithm)) -> None:
            try:
                with device:
                    lt.matmul(*arguments, stream)
            except lt.cuBLASLtError as err:
                raise BackendError(f"cuBLASLt failed in {problem}: {err}") from err

        return launch

    def seconds(self, work: Work) -> float:
        return self._seconds(work)
