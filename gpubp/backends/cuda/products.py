"""What the CUDA backend needs of a library of matrix products, in the terms of cuBLASLt.

Comes in: problems, and addresses on the device. Goes out: what launches a product on the driver's
stream, and how long work takes there. `nvmath_products.py` is cuBLASLt; the tests have another one,
which computes on the CPU what cuBLASLt's documentation says. So the way from rows to columns, the
choice of epilogues and the copies are the same code in both.

The product is D = alpha op(A) op(B) + beta C, then the epilogue, with C = D; matrices are stored
column after column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gpubp.backends.cuda.switches import switch
from gpubp.errors import BackendError

Work = Callable[[], None]
ALIGNED = 256  # bytes; cuBLASLt asks for no more
SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
COMPUTES = ("float32", "tf32", "float64")
EPILOGUES = ("none", "relu", "bias", "bias_relu")
PIP = "pip install 'gpubp[cuda13]' (or 'gpubp[cuda12]' where the driver is older)"


@dataclass(frozen=True)
class Matrix:
    """Where the elements of a stored matrix are, from an address on.

    Attributes:
        dtype: one of SIZES.
        rows, columns: as stored, before op().
        leading: elements from one column to the next.
        batch: elements from one matrix of a batch to the next.
        alignment: bytes that divide every matrix's address, at most ALIGNED.
    """

    dtype: str
    rows: int
    columns: int
    leading: int
    batch: int
    alignment: int


@dataclass(frozen=True)
class Problem:
    """A product, but for addresses.

    Attributes:
        a, b: the factors as stored; op() transposes them or not.
        d: the result, and C.
        compute: one of COMPUTES: what sums, alpha and beta are in ("tf32": float32, with factors
            rounded to TF32).
        epilogue: one of EPILOGUES. The bias has D's dtype and an element for each row of D.
        update: alpha and beta are numbers on the device, and C is read; else they are 1 and 0.
        batches: how many products.
    """

    a: Matrix
    b: Matrix
    d: Matrix
    transpose_a: bool
    transpose_b: bool
    compute: str
    epilogue: str = "none"
    update: bool = False
    batches: int = 1

    @property
    def k(self) -> int:
        """Length of the sums."""
        return self.a.rows if self.transpose_a else self.a.columns

    def __str__(self) -> str:
        form = "".join("nt"[t] for t in (self.transpose_a, self.transpose_b))
        sizes = f"{self.d.rows} x {self.d.columns} x {self.k}"
        batch = f", {self.batches} times" * (self.batches > 1)
        kinds = f"{self.a.dtype} to {self.d.dtype}, {self.compute} sums"
        after = f", {self.epilogue}" * (self.epilogue != "none") + ", in place" * self.update
        return f"a product {form} of {sizes}{batch} ({kinds}{after})"


@dataclass(frozen=True)
class Plan:
    """One way to compute a problem.

    Attributes:
        algorithm: the library's own description, valid for its version on this kind of device.
        workspace: bytes that it needs.
    """

    algorithm: bytes
    workspace: int


@dataclass(frozen=True)
class Addresses:
    """Where a product's matrices and numbers are; 0 for what the problem has not."""

    a: int
    b: int
    d: int
    bias: int = 0
    alpha: int = 0
    beta: int = 0


class Products(Protocol):
    """A library on one device.

    Attributes:
        version: for messages and for the names of kept choices, such as "cuBLASLt 130100".
        workspace: bytes that plans may need at most.
    """

    version: str
    workspace: int

    def plans(self, problem: Problem, most: int) -> list[Plan]:
        """Up to `most` ways that give the same bits each time, the most promising first.

        None if the library cannot compute the problem.

        Raises:
            BackendError: the library failed.
        """
        ...

    def restored(self, problem: Problem, algorithm: bytes) -> Plan | None:
        """A plan from an earlier process; None if it is of no use here."""
        ...

    def bound(self, problem: Problem, plan: Plan, at: Addresses, workspace: int) -> Work:
        """What launches the product, in stream order; also while launches are recorded.

        Args:
            problem: what is computed.
            plan: one of its plans.
            at: addresses, which must be as aligned as the problem says.
            workspace: address of `self.workspace` bytes, a multiple of ALIGNED.

        Raises:
            BackendError: the library refuses it; also raised by the launch.
        """
        ...

    def seconds(self, work: Work) -> float:
        """How long the device is busy with what `work` launches."""
        ...


def opened(make: Callable[[], Products]) -> Products | None:
    """The library that `make` makes, as GPUBP_CUBLASLT says; None if it is not to be used.

    Raises:
        BackendError: it cannot be used, and GPUBP_CUBLASLT is 1.
    """
    asked = setting()
    if asked == "0":
        return None
    try:
        return make()
    except BackendError:
        if asked == "1":
            raise
        return None


def setting() -> str:
    """GPUBP_CUBLASLT: "0" never, "1" always (its absence is an error), "" where it is found.

    Raises:
        UnknownNameError: something else.
    """
    return switch("GPUBP_CUBLASLT")
