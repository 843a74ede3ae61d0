"""User-defined ops on the CPU backend: the run loop calls back into Python for them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpubp.compiler.parts import Operand, Part
from gpubp.core import evaluate

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
RAISED = 3  # the status of a call that raised


class CustomCall:
    """One custom part as a C function that takes the address of the table of buffer addresses.

    The first exception is kept and raised after the run: it cannot cross native code.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._error: BaseException | None = None
        self._function = _CALLBACK(self._call)
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def _call(self, bases: int) -> int:
        try:
            compute = self._part.body[0]
            args = [self._view(self._part.inputs[i], bases) for i in compute.args]
            for arg in args:
                arg.flags.writeable = False  # it may be the caller's
            result = evaluate(compute.spec, args, compute.attrs)
            for _, operand in self._part.outputs:
                self._view(operand, bases)[...] = result
        except BaseException as err:
            self._error = self._error or err
            return RAISED
        return 0

    def _view(self, operand: Operand, bases: int) -> NDArray[Any]:
        size = operand.dtype.itemsize
        start = ctypes.c_int64.from_address(bases + 8 * operand.buffer).value
        reach = sum((n - 1) * s for n, s in zip(operand.shape, operand.strides)) + 1
        raw = (ctypes.c_char * (reach * size)).from_address(start + operand.offset * size)
        flat: NDArray[Any] = np.frombuffer(memoryview(raw), operand.dtype)
        return as_strided(flat, operand.shape, tuple(s * size for s in operand.strides))

    def take_error(self) -> BaseException | None:
        """What the user's function raised since the last time, if anything."""
        error, self._error = self._error, None
        return error
