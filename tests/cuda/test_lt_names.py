"""The bindings of cuBLASLt have every name, argument and number that the backend uses.

No GPU is needed: the names stand in the bindings themselves. Where cuBLASLt is installed as well,
its descriptors are made and read back, in a process of its own, with an empty stand-in for the
GPU's driver.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build

from gpubp import cli
from gpubp.backends.cuda import nvmath_descriptors, nvmath_products
from gpubp.backends.cuda.drivers import cupy_probe
from gpubp.backends.cuda.nvmath_descriptors import bindings
from gpubp.backends.cuda.products import EPILOGUES, PIP, SIZES, opened, setting
from gpubp.errors import BackendError, UnknownNameError

missing = importlib.util.find_spec("nvmath") is None
needs_nvmath = pytest.mark.skipif(missing, reason="needs nvmath-python: gpubp[cuda-check]")

# Function -> its arguments, by the order in which they are given.
SIGNATURES = {
    "create": "",
    "destroy": "light_handle",
    "get_version": "",
    "matmul": "light_handle, compute_desc, alpha, a, adesc, b, bdesc, beta, c, cdesc, d, ddesc, "
    "algo, workspace, workspace_size_in_bytes, stream",
    "matmul_desc_create": "compute_type, scale_type",
    "matmul_desc_destroy": "matmul_desc",
    "matmul_desc_set_attribute": "matmul_desc, attr, buf, size_in_bytes",
    "matrix_layout_create": "type, rows, cols, ld",
    "matrix_layout_destroy": "mat_layout",
    "matrix_layout_set_attribute": "mat_layout, attr, buf, size_in_bytes",
    "matmul_preference_create": "",
    "matmul_preference_destroy": "pref",
    "matmul_preference_set_attribute": "pref, attr, buf, size_in_bytes",
    "matmul_algo_get_heuristic": "light_handle, operation_desc, adesc, bdesc, cdesc, ddesc, "
    "preference, requested_algo_count, heuristic_results_array, return_algo_count",
    "matmul_algo_check": "light_handle, operation_desc, adesc, bdesc, cdesc, ddesc, algo, result",
    "matmul_algo_config_get_attribute": "algo, attr, buf, size_in_bytes, size_written",
}
# Enum -> member -> the number in cublasLt.h (cublas_api.h, library_types.h).
NUMBERS = {
    "Epilogue": {"DEFAULT": 1, "RELU": 2, "BIAS": 4, "RELU_BIAS": 6},
    "PointerMode": {"HOST": 0, "DEVICE": 1},
    "ReductionScheme": {"NONE": 0, "COMPUTE_TYPE": 2},
    "MatmulAlgoConfigAttribute": {"REDUCTION_SCHEME": 3},
    "MatmulDescAttribute": {"POINTER_MODE": 2, "TRANSA": 3, "TRANSB": 4, "EPILOGUE": 7,
                            "BIAS_POINTER": 8},
    "MatrixLayoutAttribute": {"BATCH_COUNT": 5, "STRIDED_BATCH_OFFSET": 6},
    "MatmulPreferenceAttribute": {"MAX_WORKSPACE_BYTES": 1, "REDUCTION_SCHEME_MASK": 3,
                                  **{f"MIN_ALIGNMENT_{n}_BYTES": 5 + i
                                     for i, n in enumerate("ABCD")}},
}  # fmt: skip
BYTES = {
    "matmul_desc": {"POINTER_MODE": 4, "TRANSA": 4, "TRANSB": 4, "EPILOGUE": 4, "BIAS_POINTER": 8},
    "matrix_layout": {"BATCH_COUNT": 4, "STRIDED_BATCH_OFFSET": 8},
    "matmul_preference": {"MAX_WORKSPACE_BYTES": 8, "REDUCTION_SCHEME_MASK": 4,
                          **{f"MIN_ALIGNMENT_{n}_BYTES": 4 for n in "ABCD"}},
}  # fmt: skip


@needs_nvmath
@pytest.mark.parametrize("name", SIGNATURES)
def test_functions_take_what_they_are_given(name: str) -> None:
    lt, *_ = bindings()
    head = getattr(lt, name).__doc__.splitlines()[0]
    match = re.match(rf"{name}\((.*)\)", head)
    assert match, head
    assert ", ".join(a.split()[-1] for a in match[1].split(", ") if a) == SIGNATURES[name]


@needs_nvmath
def test_every_function_that_is_called_is_checked() -> None:
    files = (nvmath_products, nvmath_descriptors)
    text = "".join(Path(module.__file__).read_text() for module in files)
    called = set(re.findall(r"lt\.([a-z]\w+)", text)) - {"cuBLASLtError"}
    types = {n for n in called if n.endswith("_dtype")}
    assert called - types == SIGNATURES.keys()
    assert all(hasattr(bindings()[0], n) for n in types)


@needs_nvmath
@pytest.mark.parametrize("name", NUMBERS)
def test_enums_have_the_headers_numbers(name: str) -> None:
    lt, *_ = bindings()
    found = {k: int(getattr(lt, name)[k]) for k in NUMBERS[name]}
    assert found == NUMBERS[name]


@needs_nvmath
def test_types_have_the_headers_numbers() -> None:
    _, cublas, nvmath = bindings()
    names = nvmath_descriptors.TYPES
    numbers = {k: int(nvmath.CudaDataType[names[k]]) for k in SIZES}
    assert numbers == {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
    computes = [int(cublas.ComputeType[n]) for n, _ in nvmath_descriptors.COMPUTES.values()]
    assert computes == [68, 77, 70]
    assert (int(cublas.Operation.N), int(cublas.Operation.T)) == (0, 1)
    assert int(cublas.Status.NOT_SUPPORTED) == 15
    assert nvmath_descriptors.EPILOGUES.keys() == set(EPILOGUES)


@needs_nvmath
@pytest.mark.parametrize("kind", BYTES)
def test_attributes_have_the_headers_sizes(kind: str) -> None:
    lt, *_ = bindings()
    enum = getattr(lt, kind.title().replace("_", "") + "Attribute")
    sizes = {n: np.dtype(getattr(lt, f"get_{kind}_attribute_dtype")(enum[n])).itemsize
             for n in BYTES[kind]}  # fmt: skip
    assert sizes == BYTES[kind]


@needs_nvmath
def test_results_of_the_heuristic_are_laid_out_as_in_the_header() -> None:
    lt, *_ = bindings()
    result = lt.matmul_heuristic_result_dtype
    places = {name: result.fields[name][1] for name in ("algo", "workspace_size", "state")}
    assert places == {"algo": 0, "workspace_size": 64, "state": 72}
    assert (result.itemsize, lt.matmul_algo_dtype.itemsize) == (96, 64)


@needs_nvmath
def test_without_the_gpus_driver_the_error_says_what_to_install() -> None:
    lt, *_ = bindings()
    try:
        lt.destroy(lt.create())
        pytest.skip("cuBLASLt can be used here")
    except Exception:
        pass
    with pytest.raises(BackendError, match=r"cuBLASLt cannot be used .*gpubp\[cuda13\]"):
        nvmath_products.NvmathProducts(contextlib.nullcontext(), 0, "sm_90", lambda work: 0.0)
    assert nvmath_products.describe().startswith("not used: ")


DESCRIPTORS = """
import contextlib, types
from dataclasses import replace
import numpy as np
from gpubp.backends.cuda import nvmath_descriptors as d, nvmath_products as n
from gpubp.backends.cuda.products import Addresses, Matrix, Plan, Problem
from gpubp.errors import BackendError

lt, cublas, nvmath = d.bindings()
a, b = Matrix("bfloat16", 6, 5, 8, 48, 16), Matrix("bfloat16", 6, 7, 9, 63, 32)
problem = Problem(a, b, Matrix("float32", 5, 7, 5, 35, 64), True, False, "float32", "bias_relu",
                  False, 3)
made = d.Descriptors(lt, cublas, nvmath, problem, 4096)

def read(kind, owner, enum, name):
    kinds = getattr(lt, f"get_{kind}_attribute_dtype")
    value, size = np.zeros(1, kinds(enum[name])), np.zeros(1, np.uint64)
    get = getattr(lt, f"{kind}_get_attribute")
    get(owner, enum[name], value.ctypes.data, value.nbytes, size.ctypes.data)
    assert size[0] == value.nbytes
    return int(value[0])

operation = {"COMPUTE_TYPE": 68, "SCALE_TYPE": 0, "POINTER_MODE": 0, "TRANSA": 1, "TRANSB": 0,
             "EPILOGUE": 6, "BIAS_POINTER": 4096}
layout = {"TYPE": 14, "ORDER": 0, "ROWS": 6, "COLS": 5, "LD": 8, "BATCH_COUNT": 3,
          "STRIDED_BATCH_OFFSET": 48}
wish = {"MIN_ALIGNMENT_A_BYTES": 16, "MIN_ALIGNMENT_B_BYTES": 32, "MIN_ALIGNMENT_C_BYTES": 64,
        "MIN_ALIGNMENT_D_BYTES": 64, "MAX_WORKSPACE_BYTES": 8 << 20, "REDUCTION_SCHEME_MASK": 2}
for kind, owner, enum, expected in (
    ("matmul_desc", made.operation, lt.MatmulDescAttribute, operation),
    ("matrix_layout", made.a, lt.MatrixLayoutAttribute, layout),
    ("matmul_preference", made.preference(problem, 8 << 20), lt.MatmulPreferenceAttribute, wish),
):
    found = {name: read(kind, owner, enum, name) for name in expected}
    assert found == expected, (found, expected)
del made

class Uninitialised(n.NvmathProducts):  # no GPU, so no handle: what is called refuses that
    def __init__(self):
        self._lt, self._cublas, self._nvmath = lt, cublas, nvmath
        self._handle, self._device, self.workspace = 0, contextlib.nullcontext(), 1 << 20
        self._stream = 0

products = Uninitialised()
algorithm = np.zeros(64, np.uint8)
assert products._repeatable(algorithm.tobytes())
for scheme, expected in ((0, True), (1, False), (2, True), (4, False)):
    value = np.array([scheme], np.uint32)
    attribute = lt.MatmulAlgoConfigAttribute.REDUCTION_SCHEME
    lt.matmul_algo_config_set_attribute(algorithm.ctypes.data, attribute, value.ctypes.data, 4)
    assert products._repeatable(algorithm.tobytes()) == expected, scheme
assert products.restored(problem, bytes(64)) is None
assert products.restored(problem, b"short") is None
update = replace(problem, epilogue="none", update=True)
for work in (
    lambda: products.plans(problem, 5),
    products.bound(problem, Plan(bytes(64), 0), Addresses(256, 512, 768, 1024), 4096),
    products.bound(update, Plan(bytes(64), 0), Addresses(256, 512, 768, 0, 8, 16), 4096),
):
    try:
        work()
    except BackendError as error:
        assert "a product tn of 5 x 7 x 6, 3 times" in str(error), error
        assert "NOT_INITIALIZED" in str(error), error
    else:
        raise AssertionError("that cannot have worked")
print("read back")
"""


@needs_nvmath
def test_the_librarys_descriptors_hold_what_was_set(tmp_path: Path) -> None:
    if not list(_libraries()):
        pytest.skip("needs cuBLASLt itself: pip install nvidia-cublas")
    if shim_build.MISSING:
        pytest.skip(str(shim_build.MISSING))
    source = tmp_path / "driver.c"
    source.write_text("int cuDriverGetVersion(int *v) { *v = 13000; return 0; }\n")
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run(["g++", "-xc", "-shared", "-fPIC", "-o", library, str(source)], check=True)
    places = [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, places)),
                   "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", DESCRIPTORS], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "read back\n", run.stderr


def _libraries() -> Any:
    spec = importlib.util.find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        yield from Path(place).glob("c*/lib/libcublasLt.so.1*")


@pytest.mark.parametrize("value", ["", "0", "1"])
def test_the_setting_says_whether_absence_is_an_error(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> Any:
        raise BackendError(PIP)

    monkeypatch.setenv("GPUBP_CUBLASLT", value)
    assert setting() == value
    if value == "1":
        with pytest.raises(BackendError, match="pip install"):
            opened(absent)
    else:
        assert opened(absent) is None
    found: Any = object()
    assert opened(lambda: found) is (None if value == "0" else found)


def test_a_setting_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_CUBLASLT", "yes")
    with pytest.raises(UnknownNameError, match="GPUBP_CUBLASLT"):
        setting()


def test_info_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nvmath", None)
    bindings.cache_clear()
    assert "not used: " in nvmath_products.describe()
    assert "pip install 'gpubp[cuda13]'" in nvmath_products.describe()
    _with_a_gpu(monkeypatch)
    assert cli.main(["info"]) == 0
    assert re.search(
        r"cublaslt: not used: .*pip install 'gpubp\[cuda13\]'", capsys.readouterr().out
    )
    monkeypatch.setenv("GPUBP_CUBLASLT", "0")
    assert nvmath_products.describe() == "not used: GPUBP_CUBLASLT is 0"
    bindings.cache_clear()


def _with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as `gpubp info` looks."""
    fake = types.ModuleType("cupy")
    fake.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cupy_probe, "probe", lambda: (True, "for this test", {}))
