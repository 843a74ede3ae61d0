"""cuBLASLt's descriptors of a product, through the bindings of nvmath-python.

They need the library but no GPU. Each is destroyed with the object that made it.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.products import PIP, Matrix, Problem
from gpubp.core.store import address_of
from gpubp.errors import BackendError

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
    except Exception as err:  # a broken installation raises more than ImportError
        raise BackendError(f"nvmath-python is not there ({err}): {PIP}") from err
    return cublasLt, cublas, nvmath


def _set(setter: Any, owner: int, attribute: Any, value: int, kind: Any) -> None:
    """Set an attribute of a descriptor."""
    number = np.array([value], kind)
    setter(owner, attribute, address_of(number), number.nbytes)


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
