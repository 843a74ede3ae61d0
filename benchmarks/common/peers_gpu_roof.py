"""What a GPU reaches at best, by PyTorch: large matrix products in each precision, and a copy."""

from __future__ import annotations

from typing import Any

import torch

from common.case import Case, NotSupportedError
from common.gpu_roof import COPY_BYTES, SIDE

CALLS = 10


class RoofCase(Case):
    """`CALLS` calls of one operation, then a wait.

    Args:
        variant: "gemm-float32", "gemm-tf32", "gemm-bf16" or "copy".
    """

    units = CALLS

    def __init__(self, variant: str) -> None:
        if not torch.cuda.is_available():
            raise NotSupportedError("PyTorch finds no GPU")
        dtype = torch.bfloat16 if variant == "gemm-bf16" else torch.float32
        self._precision = "high" if variant == "gemm-tf32" else "highest"
        shape = (COPY_BYTES // 4,) if variant == "copy" else (SIDE, SIDE)
        self._arrays = [torch.ones(shape, dtype=dtype, device="cuda") for _ in range(3)]
        self._copies = variant == "copy"

    def run(self) -> None:
        """All calls."""
        self._calls()
        torch.cuda.synchronize()

    def device_seconds(self) -> float:
        """By events on the current stream."""
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self._calls()
        stop.record()
        stop.synchronize()
        return float(start.elapsed_time(stop)) * 1e-3

    def _calls(self) -> None:
        torch.set_float32_matmul_precision(self._precision)
        a, b, c = self._arrays
        for _ in range(CALLS):
            if self._copies:
                c.copy_(a)
            else:
                torch.mm(a, b, out=c)


def build(variant: str, task: Any) -> Case:
    """The operation of that name; the task is ignored."""
    return RoofCase(variant)


def versions() -> dict[str, str]:
    """Of PyTorch, and the GPU it finds."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"torch": torch.__version__, "gpu": name}
