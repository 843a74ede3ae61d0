"""Calls of array functions, for `test_ops_at_once_on_shim`; those of several results give one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp import ops

Arrays = dict[str, Any]
Call = Callable[[Arrays], Any]
OF_X = (
    *("acosh", "all", "amax", "amin", "any", "asinh", "atan", "ceil", "count_nonzero", "cosh"),
    *("deg2rad", "diag", "diag_embed", "diagonal", "exp2", "flip", "fliplr", "flipud", "frac"),
    *("isinf", "isnan", "isneginf", "isposinf", "logsumexp", "nan_to_num", "nanmean", "nansum"),
    *("norm", "ones_like", "prod", "rad2deg", "reciprocal", "rot90", "round", "signbit", "sinc"),
    *("sinh", "std", "tan", "trace", "tril", "triu", "trunc", "var", "vector_norm", "zeros_like"),
)
OF_P = ("acos", "asin", "atanh", "erfinv", "log10", "log2", "logit", "rsqrt")
OF_XY = ("atan2", "copysign", "floor_divide", "fmod", "heaviside", "hypot", "inner", "kron")
OF_XY += ("logaddexp", "logaddexp2", "remainder")

ARRAY_CALLS: dict[str, Call] = {
    **{name: lambda a, name=name: getattr(ops, name)(a["x"]) for name in OF_X},
    **{name: lambda a, name=name: getattr(ops, name)(a["p"]) for name in OF_P},
    **{name: lambda a, name=name: getattr(ops, name)(a["x"], a["y"]) for name in OF_XY},
    "addcdiv": lambda a: ops.addcdiv(a["x"], a["y"], a["p"], value=2.0),
    "addcmul": lambda a: ops.addcmul(a["x"], a["y"], a["p"], value=2.0),
    "aminmax": lambda a: ops.aminmax(a["x"], 0)[1],
    "chunk": lambda a: ops.chunk(a["x"], 2)[1],
    "clamp": lambda a: ops.clamp(a["x"], min=a["y"], max=0.5),
    "dot": lambda a: ops.dot(a["bias"], a["bias"]),
    "einsum": lambda a: ops.einsum("ij,kj->ki", a["x"], a["y"]),
    "expand": lambda a: ops.expand(a["bias"], 3, -1),
    "full_like": lambda a: ops.full_like(a["x"], 0.25),
    "hstack": lambda a: ops.hstack([a["x"], a["y"]]),
    "lerp": lambda a: ops.lerp(a["x"], a["y"], a["p"]),
    "masked_fill": lambda a: ops.masked_fill(a["x"], a["m"], 2.0),
    "meshgrid": lambda a: ops.meshgrid(a["bias"], a["slope"])[0],
    "moveaxis": lambda a: ops.moveaxis(a["x"], 0, 1),
    "outer": lambda a: ops.outer(a["bias"], a["slope"]),
    "repeat": lambda a: ops.repeat(a["x"], (2, 1)),
    "repeat_interleave": lambda a: ops.repeat_interleave(a["x"], 2, 1),
    "roll": lambda a: ops.roll(a["x"], 2, 1),
    "split": lambda a: ops.split(a["x"], 3, 1)[1],
    "std_mean": lambda a: ops.std_mean(a["x"], 1)[0],
    "tensordot": lambda a: ops.tensordot(a["x"], a["y"], ([1], [1])),
    "tile": lambda a: ops.tile(a["x"], (2, 2)),
    "unbind": lambda a: ops.unbind(a["x"])[1],
    "unflatten": lambda a: ops.unflatten(a["x"], 1, (2, 3)),
    "var_mean": lambda a: ops.var_mean(a["x"], 1)[0],
    "vstack": lambda a: ops.vstack([a["x"], a["y"]]),
    "xlogy": lambda a: ops.xlogy(a["x"], a["p"]),
}
# These make arrays of their own, on the host.
MAKERS = {"arange", "eye", "full", "linspace", "logspace", "ones", "zeros"}
