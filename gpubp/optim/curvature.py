"""What L-BFGS knows of a loss's Hessian: pairs of changes of the gradient and of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core.interop import host_array
from gpubp.errors import DataError, ShapeError

LEAST_CURVATURE = 1e-10  # of a pair (s, y) that is kept: s y
_ARRAYS, _LISTS = ("d", "prev_flat_grad"), ("old_dirs", "old_stps")
_NUMBERS = ("t", "H_diag", "prev_loss")


class Memory:
    """What is known of the Hessian, and where the last step ended; names as in torch's state.

    Attributes:
        n_iter, func_evals: iterations and evaluations so far.
        d, t: the last direction, and how far it was followed.
        old_dirs, old_stps, ro: changes of the gradient y and of the weights s, and 1 / (y s).
        H_diag: the size of the inverse Hessian's diagonal.
        prev_flat_grad, prev_loss: where the last iteration began.
    """

    def __init__(self) -> None:
        self.n_iter = self.func_evals = 0
        self.d: NDArray[Any] | None = None
        self.prev_flat_grad: NDArray[Any] | None = None
        self.t = self.H_diag = 1.0
        self.prev_loss = 0.0
        self.old_dirs: list[NDArray[Any]] = []
        self.old_stps: list[NDArray[Any]] = []
        self.ro: list[float] = []

    def copied(self, size: int) -> Memory:
        """A memory that may be written into; a new one where the vectors have another size."""
        made = Memory()
        if self.d is None or self.d.size == size:
            vars(made).update({k: list(v) if type(v) is list else v for k, v in vars(self).items()})
        return made

    def direction(self, grad: NDArray[Any], history: int) -> NDArray[Any]:
        """Take in the gradient after the last step; returns where to go, -H g."""
        if self.d is None or self.prev_flat_grad is None:
            return -grad
        y, s = grad - self.prev_flat_grad, self.d * self.t
        ys = float(y.dot(s))
        if ys > LEAST_CURVATURE:
            self.old_dirs = [*self.old_dirs, y][-history:]
            self.old_stps = [*self.old_stps, s][-history:]
            self.ro = [*self.ro, 1.0 / ys][-history:]
            self.H_diag = ys / float(y.dot(y))
        q, shares = -grad, []
        pairs = list(zip(self.old_dirs, self.old_stps, self.ro, strict=True))
        for y, s, ro in reversed(pairs):
            shares.append(float(s.dot(q)) * ro)
            q = q - shares[-1] * y
        q = q * self.H_diag
        for y, s, ro in pairs:
            q = q + (shares.pop() - float(y.dot(q)) * ro) * s
        return q

    def state_dict(self) -> dict[str, Any]:
        """All of it (copies), as torch keeps it."""
        found = {k: [*v] if type(v) is list else v for k, v in vars(self).items() if v is not None}
        return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in found.items()}

    @classmethod
    def read(cls, state: Mapping[str, Any], size: int, dtype: Any) -> Memory:
        """A memory from `state_dict`, or from torch's.

        Raises:
            ShapeError: a vector is not of `size`.
        """

        def vector(value: Any, name: str) -> NDArray[Any]:
            array = np.array(host_array(value, f"LBFGS: state {name}"), dtype=dtype)
            if array.shape != (size,):
                raise ShapeError(
                    f"LBFGS: state {name} has shape {array.shape}, expected {(size,)}: one number "
                    "for each weight that is trained."
                )
            return array

        made = cls()
        given = {k: v for k, v in state.items() if v is not None}
        made.n_iter, made.func_evals = (int(given.get(k, 0)) for k in ("n_iter", "func_evals"))
        for name in _NUMBERS:
            setattr(made, name, float(given.get(name, getattr(made, name))))
        for name in _ARRAYS:
            setattr(made, name, vector(given[name], name) if name in given else None)
        for name in _LISTS:
            setattr(made, name, [vector(v, name) for v in given.get(name, ())])
        made.ro = [float(r) for r in given.get("ro", ())]
        if not len(made.ro) == len(made.old_dirs) == len(made.old_stps):
            raise DataError("LBFGS: old_dirs, old_stps and ro of the state differ in length.")
        return made
