"""torch's names: of arguments (`dim` beside `axis`), functions (`cat`), and methods of arrays.

Comes in: the functions of `gpubp.ops`, whose names of arguments are NumPy's here and torch's there.
Goes out: the same functions, which take both; other names for some of them; and the methods that
traced arrays, parameters and buffers have. Where NumPy and torch mean different things by one name
it is not taken: the error shows both.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from gpubp.errors import ArgumentError
from gpubp.habits import OPS, asked_of_to, missing

Function = Callable[..., Any]

_PAIRS = (
    ("axis", "dim"), ("keepdims", "keepdim"), ("start_axis", "start_dim"),
    ("end_axis", "end_dim"), ("ord", "p"),
)  # fmt: skip
# Whose `dims` are axes, which NumPy calls `axis`.
_WITH_DIMS = ("flip", "roll")
_DIFFERENT = {
    "max": "torch's max(x, dim) gives values and indices. Write gp.ops.max(x, axis=1) and "
    "gp.ops.argmax(x, axis=1), or gp.ops.amax(x, dim=1).",
    "min": "torch's min(x, dim) gives values and indices. Write gp.ops.min(x, axis=1) and "
    "gp.ops.argmin(x, axis=1), or gp.ops.amin(x, dim=1).",
    "gather": "torch's gather(x, dim, index) is gp.ops.gather_along(x, dim, index).",
    "scatter_add": "torch's scatter_add(x, dim, index, src) is gp.ops.scatter_add_along(x, dim, "
    "index, src).",
}

# torch's and NumPy's names of functions that have another one here, the same arguments and meaning.
ALIASES: Mapping[str, str] = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh",
    "arctan": "atan", "arctan2": "atan2", "arctanh": "atanh", "bmm": "matmul", "cat": "concat",
    "clone": "copy", "concatenate": "concat", "detach": "stop_gradient", "div": "divide",
    "eq": "equal", "fix": "trunc", "ge": "greater_equal", "gt": "greater", "le": "less_equal",
    "lt": "less", "mm": "matmul", "movedim": "moveaxis", "mul": "multiply", "mv": "matmul",
    "ne": "not_equal", "neg": "negative", "permute": "transpose", "pow": "power",
    "sub": "subtract", "swapdims": "swapaxes", "true_divide": "divide", "unsqueeze": "expand_dims",
}  # fmt: skip
# Methods that are functions of the same name, or of an alias.
_METHODS = (
    "abs absolute acos acosh add addcdiv addcmul all amax amin aminmax any arccos arccosh arcsin "
    "arcsinh arctan arctanh argmax argmin argsort asin asinh atan atan2 atanh bmm ceil chunk clamp "
    "clip clone copy copysign cos cosh count_nonzero cummax cummin cumprod cumsum deg2rad detach "
    "diag diagonal div divide dot eq equal erf erfinv exp exp2 expm1 fix flatten flip floor fmod "
    "frac ge greater gt hypot index_add index_copy index_fill index_select isfinite isinf isnan "
    "kthvalue le lerp less log log10 log1p log2 log_softmax logaddexp logical_and logical_not "
    "logical_or logit logsumexp lt masked_fill masked_select matmul maximum median minimum mm "
    "moveaxis movedim mul multiply mv nan_to_num nanmean nansum ne neg negative norm not_equal "
    "outer pow power prod rad2deg ravel reciprocal relu remainder repeat_interleave roll round "
    "rsqrt scatter sigmoid sign sin sinc sinh softmax sqrt square squeeze sub subtract swapaxes "
    "swapdims take take_along_dim tan tanh topk trace tril triu trunc unbind unflatten unsqueeze "
    "xlogy"
)


def with_both_names(functions: Mapping[str, Any]) -> dict[str, Any]:
    """`both_names` of functions by name; what has two names stays one function."""
    made: dict[int, Any] = {}
    for name, fn in functions.items():
        made.setdefault(id(fn), both_names(name, fn))
    return {name: made[id(fn)] for name, fn in functions.items()}


def both_names(name: str, fn: Any) -> Any:
    """The function, which takes its arguments by torch's names and by NumPy's.

    Args:
        name: of the function.
        fn: a function of `gpubp.ops`; one without such arguments is returned as it is.

    Raises:
        ArgumentError: (from calls) an argument under both of its names, or a call that would mean
            something else in torch.
    """
    if not inspect.isfunction(fn):
        return fn
    code = inspect.unwrap(fn).__code__
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    pairs = [*_PAIRS, *([("axis", "dims")] if name in _WITH_DIMS else [])]
    other = {b: a for a, b in pairs if a in own} | {a: b for a, b in pairs if b in own}
    if not other:
        return fn

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if name in _DIFFERENT:
            _refuse_other_meaning(name, args, kwargs)
        for given in other.keys() & kwargs.keys():
            mine = other[given]
            if mine in kwargs or own.index(mine) < len(args):
                raise ArgumentError(f"{name}: {given} is another name of {mine}: give one of them.")
            kwargs[mine] = kwargs.pop(given)
        return fn(*args, **kwargs)

    call.__module__ = "gpubp.ops"  # where pickles look for it
    return call


def _refuse_other_meaning(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise ArgumentError for a call as torch's function of this name is called."""
    placed = name in ("gather", "scatter_add") and len(args) > 2
    turned = placed and isinstance(args[1], int) and not isinstance(args[2], int)
    if "dim" in kwargs or turned:
        raise ArgumentError(f"{name}: {_DIFFERENT[name]}")


def find(name: str, module: Any) -> Any:
    """A function of `gpubp.ops` under another name. Raises UnknownAttributeError if none is."""
    if name not in ALIASES:
        raise missing(module, f"module {module.__name__!r}", name, OPS)
    return getattr(module, ALIASES[name])


def methods(ops: Any) -> dict[str, Function]:
    """The methods of arrays, by name; the first argument is the array."""
    plain = {name: getattr(ops, ALIASES.get(name, name)) for name in _METHODS.split()}
    return {**plain, **_with_sizes(ops), **_as_another(ops), **_SIMPLE, **_by_index(ops)}


def _sizes(values: tuple[Any, ...]) -> Any:
    return values[0] if len(values) == 1 and not isinstance(values[0], int) else values


def _with_sizes(ops: Any) -> dict[str, Function]:
    """Whose sizes or axes are one sequence, or one argument each."""

    def view(x: Any, *shape: Any) -> Any:
        wanted = _sizes(shape)
        if not isinstance(wanted, (tuple, list)):
            raise ArgumentError(
                "view: expected a shape, such as x.view(-1, 8). Another dtype is x.astype(dtype)."
            )
        return ops.reshape(x, wanted)

    def expand(x: Any, *shape: Any) -> Any:
        return ops.expand(x, _sizes(shape))

    def permute(x: Any, *dims: Any) -> Any:
        return ops.transpose(x, _sizes(dims))

    def tile(x: Any, *dims: Any) -> Any:
        return ops.tile(x, _sizes(dims))

    return {"view": view, "expand": expand, "permute": permute, "tile": tile}


def _as_another(ops: Any) -> dict[str, Function]:
    """In the shape or the dtype of something else."""

    def to(x: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = asked_of_to(*args, **kwargs)
        return x if dtype is None else ops.astype(x, dtype)

    named = {"float": "float32", "double": "float64", "int": "int32", "long": "int64"}
    casts = {
        name: functools.partial(lambda dtype, x: ops.astype(x, dtype), dtype)
        for name, dtype in {**named, "bool": "bool"}.items()
    }
    return {
        **casts,
        "to": to,
        "type_as": lambda x, other: ops.astype(x, other.dtype),
        "view_as": lambda x, other: ops.reshape(x, other.shape),
        "reshape_as": lambda x, other: ops.reshape(x, other.shape),
        "expand_as": lambda x, other: ops.broadcast_to(x, other.shape),
    }


def _by_index(ops: Any) -> dict[str, Function]:
    """torch's alone, whose names mean something else as functions here."""
    return {
        "gather": ops.gather_along,
        "scatter_add": ops.scatter_add_along,
        "where": lambda x, condition, other: ops.where(condition, x, other),
        "t": lambda x: ops.swapaxes(x, 0, 1) if x.ndim > 1 else x,
    }


_SIMPLE: dict[str, Function] = {
    "numel": operator.attrgetter("size"),
    "dim": operator.attrgetter("ndim"),
    "contiguous": lambda x: x,
}
