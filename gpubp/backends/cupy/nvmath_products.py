"""cuBLASLt as a library of products, through the bindings of nvmath-python; see `products.py`.

Like `device.py`, this runs on a GPU only. Descriptors are made once for each launch of a program
and destroyed with it; a launch itself is one call.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cupy.products import PIP, Addresses, Matrix, Plan, Problem, Work, setting
from gpubp.errors import BackendError
from gpubp.store import address_of

# Enough for every algorithm on Hopper, by PyTorch's and NVIDIA's own choice; less elsewhere.
WORKSPACES = {"sm_90": 32 << 20}
WORKSPACE = 8 << 20
# dtype -> name in CudaDataType; compute -> names of the type of sums and of alpha and beta.
TYPES = {"float32": "CUDA_R_32F", "float64": "CUDA_R_64F", "bfloat16": "CUDA_R_16BF",
         "float16": "CUDA_R_16F"}  # fmt: skip
COMPUTES = {
    "float32": ("COMPUTE_32F", "float32"),
    "tf32": ("COMPUTE_32F_FAST_TF32", "float32"),
    "float64": ("COMPUTE_64F", "float64"),
}
EPILOGUES = {"none": "DEFAULT", "relu": "RELU", "bias": "BIAS", "bias_relu": "RELU_BIAS"}
ALIGNMENTS = ("A", "B", "C", "D")


@cache
def bindings() -> Any:
    """The modules that are used: cublasLt, cublas, nvmath.

    Raises:
        BackendError: nvmath-python is not installed, or does not load.
    """
    try:
        import nvmath
        from nvmath.bindings import cublas, cublasLt
    except ImportError as err:
        raise BackendError(f"nvmath-python is not there ({err}): {PIP}") from err
    return cublasLt, cublas, nvmath


def describe() -> str:
    """For `gpubp info`: the library's version, or why it is not used; never raises."""
    try:
        if setting() == "0":
            return "not used: GPUBP_CUBLASLT is 0"
        return f"{bindings()[0].get_version()}"
    except Exception as err:
        hint = "" if PIP in str(err) else f": {PIP}"
        return f"not used: {err}{hint}"


def _set(setter: Any, owner: int, attribute: Any, value: int, kind: Any) -> None:
    """Set an attribute of a descriptor."""
    number = np.array([value], kind)
    setter(owner, attribute, address_of(number), number.nbytes)


class NvmathProducts:
    """cuBLASLt on one device and stream.

    Args:
        cupy: the module.
        device: a `cupy.cuda.Device`.
        stream: a `cupy.cuda.Stream` on it.
        architecture: of the device, such as "sm_90".

    Raises:
        BackendError: the library cannot be used; says why, and what to install.
    """

    def __init__(self, cupy: Any, device: Any, stream: Any, architecture: str) -> None:
        self._lt, self._cublas, self._nvmath = bindings()
        self._cupy, self._device, self._stream = cupy, device, stream
        self.workspace = WORKSPACES.get(architecture, WORKSPACE)
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
                    lt.matmul(*arguments, stream.ptr)
            except lt.cuBLASLtError as err:
                raise BackendError(f"cuBLASLt failed in {problem}: {err}") from err

        return launch

    def seconds(self, work: Work) -> float:
        with self._device:
            start, stop = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            start.record(self._stream)
            work()
            stop.record(self._stream)
            stop.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(start, stop)) / 1e3


def scalars(problem: Problem) -> NDArray[Any]:
    """alpha and beta of a product that is no update: read from the host when it is launched."""
    return np.array([1, 0], COMPUTES[problem.compute][1])


class Descriptors:
    """cuBLASLt's descriptors of one product; destroyed with the object.

    Args:
        lt, cublas, nvmath: from `bindings`.
        problem: what they describe.
        bias: its address; if that is not known yet, any that is as aligned.
    """

    def __init__(self, lt: Any, cublas: Any, nvmath: Any, problem: Problem, bias: int = 0) -> None:
        self._lt, self._types = lt, nvmath.CudaDataType
        self._held: list[tuple[Any, int]] = []
        weakref.finalize(self, _destroy, self._held).atexit = False
        compute, scale = COMPUTES[problem.compute]
        scale_type = self._types[TYPES[scale]]
        self.operation = lt.matmul_desc_create(cublas.ComputeType[compute], scale_type)
        self._held.append((lt.matmul_desc_destroy, self.operation))
        mode = lt.PointerMode.DEVICE if problem.update else lt.PointerMode.HOST
        turned = [cublas.Operation.T if t else cublas.Operation.N
                  for t in (problem.transpose_a, problem.transpose_b)]  # fmt: skip
        attributes = {"POINTER_MODE": mode, "TRANSA": turned[0], "TRANSB": turned[1]}
        attributes["EPILOGUE"] = lt.Epilogue[EPILOGUES[problem.epilogue]]
        if "bias" in problem.epilogue:
            attributes["BIAS_POINTER"] = bias or 256
        for name, value in attributes.items():
            attribute = lt.MatmulDescAttribute[name]
            kind = lt.get_matmul_desc_attribute_dtype(attribute)
            _set(lt.matmul_desc_set_attribute, self.operation, attribute, int(value), kind)
        self.a, self.b, self.d = (
            self._layout(m, problem.batches) for m in (problem.a, problem.b, problem.d)
        )

    def _layout(self, matrix: Matrix, batches: int) -> int:
        lt = self._lt
        kind = self._types[TYPES[matrix.dtype]]
        made: int = lt.matrix_layout_create(kind, matrix.rows, matrix.columns, matrix.leading)
        self._held.append((lt.matrix_layout_destroy, made))
        if batches > 1:
            for name, value in (("BATCH_COUNT", batches), ("STRIDED_BATCH_OFFSET", matrix.batch)):
                attribute = lt.MatrixLayoutAttribute[name]
                kind = lt.get_matrix_layout_attribute_dtype(attribute)
                _set(lt.matrix_layout_set_attribute, made, attribute, value, kind)
        return made

    def preference(self, problem: Problem, workspace: int) -> int:
        """What plans may use: so much workspace, these alignments, sums that can be repeated."""
        lt = self._lt
        made: int = lt.matmul_preference_create()
        self._held.append((lt.matmul_preference_destroy, made))
        matrices = (problem.a, problem.b, problem.d, problem.d)
        values = {f"MIN_ALIGNMENT_{n}_BYTES": m.alignment for n, m in zip(ALIGNMENTS, matrices)}
        values["MAX_WORKSPACE_BYTES"] = workspace
        values["REDUCTION_SCHEME_MASK"] = int(lt.ReductionScheme.COMPUTE_TYPE)
        for name, value in values.items():
            attribute = lt.MatmulPreferenceAttribute[name]
            kind = lt.get_matmul_preference_attribute_dtype(attribute)
            _set(lt.matmul_preference_set_attribute, made, attribute, value, kind)
        return made


def _destroy(held: list[tuple[Any, int]]) -> None:
    for destroy, made in reversed(held):
        destroy(made)
