"""The language of the kernels: a small part of Python, compiled by `translate` to LLVM's.

Numbers of fixed size, raw memory by intrinsics, functions that call each other, tests and loops
over ranges. The types in a function follow from those of its arguments, by NumPy's rules: int64
with float32 gives float64. A division of integers by 0 gives 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, SimpleNamespace
from typing import Any

from llvmlite import ir


@dataclass(frozen=True)
class Type:
    """A number: its kind ("b", "i", "u" or "f"; "v" is none) and its bits."""

    kind: str
    bits: int

    def __call__(self, *args: Type) -> Signature:
        """The signature of a function that returns one."""
        return Signature(self, args)

    @property
    def ir(self) -> Any:
        """LLVM's type."""
        if self.kind == "f":
            return ir.FloatType() if self.bits == 32 else ir.DoubleType()
        return ir.VoidType() if self.kind == "v" else ir.IntType(self.bits)

    def __str__(self) -> str:
        words = {"i": "int", "u": "uint", "f": "float", "b": "bool", "v": "void"}
        return f"{words[self.kind]}{self.bits}"


@dataclass(frozen=True)
class Tuple:
    """Several numbers."""

    members: tuple[Type, ...]

    def __call__(self, *args: Type) -> Signature:
        """The signature of a function that returns them."""
        return Signature(self, args)


@dataclass(frozen=True)
class Signature:
    """Types of a function."""

    return_type: Type | Tuple
    args: tuple[Type, ...]


types = SimpleNamespace(
    boolean=Type("b", 1),
    int32=Type("i", 32),
    int64=Type("i", 64),
    uint8=Type("u", 8),
    uint32=Type("u", 32),
    uint64=Type("u", 64),
    float32=Type("f", 32),
    float64=Type("f", 64),
    void=Type("v", 0),
    UniTuple=lambda kind, count: Tuple((kind,) * count),
)


@dataclass(frozen=True, eq=False)
class Function:
    """A kernel, or a function that kernels call.

    Attributes:
        python: what is translated.
        contract: a multiply and an add may become one instruction.
        inline: always made a part of the caller.
    """

    python: FunctionType
    contract: bool = False
    inline: bool = False


@dataclass(frozen=True, eq=False)
class Intrinsic:
    """`define(None, *arguments)` gives a signature and a function `(context, builder, signature,
    args)` that emits LLVM's instructions.
    """

    define: Callable[..., Any]


def native(python: Any = None, *, contract: bool = False, inline: bool = False) -> Any:
    """Make a function of this language, as a decorator with or without options."""
    if python is None:
        return lambda function: Function(function, contract, inline)
    return Function(python, contract, inline)


def intrinsic(define: Any) -> Any:
    """A function that is written in LLVM's instructions."""
    return Intrinsic(define)


def define(source: str, name: str, namespace: dict[str, Any]) -> Any:
    """The function `name` that generated source defines."""
    exec(compile(source, f"<gpubp {name}>", "exec"), namespace)
    namespace[name].source = source
    return namespace[name]
