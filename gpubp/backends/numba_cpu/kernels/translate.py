"""Functions of the kernels' `language`, statement by statement, to LLVM's.

Each function is translated once for each list of argument types, to a function of the module.
Variables are slots on the stack, which LLVM turns into registers. A test or a choice that depends
on constants alone is made here, so that one source serves several arithmetic types.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from functools import cache
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.arithmetic import Value
from gpubp.backends.numba_cpu.kernels.expressions import Expressions
from gpubp.backends.numba_cpu.kernels.language import Function, Tuple, Type, types

_CONTRACTED = ("fadd", "fsub", "fmul", "fdiv")


def kernel_module(function: Function, symbol: str) -> Any:
    """An LLVM module that exports a kernel: `i32 (int64 *result, void **, six int64)`."""
    module = ir.Module(symbol)
    arguments = [types.int64] * len(inspect.signature(function.python).parameters)
    inner, _ = Translator(module).function(function, tuple(arguments))
    word = ir.IntType(64)
    pointers = [word.as_pointer(), ir.IntType(8).as_pointer().as_pointer()]
    kind = ir.FunctionType(ir.IntType(32), [*pointers, *[word] * len(arguments)])
    outer = ir.Function(module, kind, symbol)
    builder = ir.IRBuilder(outer.append_basic_block("entry"))
    builder.store(builder.call(inner, outer.args[2:]), outer.args[0])
    builder.ret(ir.Constant(ir.IntType(32), 0))
    return module


@cache
def _tree(python: Any) -> Any:
    source = getattr(python, "source", None) or textwrap.dedent(inspect.getsource(python))
    return ast.parse(source).body[0]


def _names(python: Any) -> dict[str, Any]:
    """What the free names of a function stand for."""
    cells = python.__closure__ or ()
    closed = {n: c.cell_contents for n, c in zip(python.__code__.co_freevars, cells)}
    return {**vars(builtins), **python.__globals__, **closed}


class Translator:
    """All functions of one module."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._made: dict[Any, tuple[Any, Type | Tuple]] = {}

    def function(self, function: Function, arguments: tuple[Type, ...]) -> tuple[Any, Any]:
        """LLVM's function for these argument types, and the type of its result."""
        key = function, arguments
        if key not in self._made:
            self._made[key] = _Body(self, function, arguments).translate()
        return self._made[key]


class _Body(Expressions):
    """One function."""

    def __init__(self, home: Translator, function: Function, arguments: tuple[Type, ...]) -> None:
        self.home, self.function = home, function
        self.tree = _tree(function.python)
        name = home.module.get_unique_name(f"{self.tree.name}.")
        kind = ir.FunctionType(ir.VoidType(), [a.ir for a in arguments])
        self.made = ir.Function(home.module, kind, name)
        self.made.linkage = "internal"
        self.made.attributes.add("nounwind")
        if function.inline:
            self.made.attributes.add("alwaysinline")
        self.entry = self.made.append_basic_block("entry")
        start = self.made.append_basic_block("start")
        super().__init__(ir.IRBuilder(start), _names(function.python))
        self.start, self.depth = start, 0
        self.slots: dict[str, tuple[Any, Any]] = {}
        self.loops: list[tuple[Any, Any]] = []  # where continue and break go
        self.result: Type | Tuple | None = None
        for argument, given, declared in zip(self.tree.args.args, self.made.args, arguments):
            self.assign(argument.arg, Value(declared, given))

    def translate(self) -> tuple[Any, Any]:
        """LLVM's function and its result's type."""
        self.block(self.tree.body)
        if not self.builder.block.is_terminated:
            self.builder.unreachable()
        ir.IRBuilder(self.entry).branch(self.start)
        assert self.result is not None
        returned = self.result.ir if isinstance(self.result, Type) else _struct(self.result)
        self.made.ftype = ir.FunctionType(returned, self.made.ftype.args)
        self.made.type = self.made.ftype.as_pointer()
        self.made.return_value = ir.values.ReturnValue(self.made, returned)
        if self.function.contract:
            for block in self.made.blocks:
                for instruction in block.instructions:
                    if instruction.opname in _CONTRACTED:
                        instruction.flags.append("contract")
        return self.made, self.result

    def called(self, function: Function, arguments: list[Value]) -> Any:
        """A call of another function."""
        target, result = self.home.function(function, tuple(a.type for a in arguments))
        value = self.builder.call(target, [a.ir for a in arguments])
        if isinstance(result, Type):
            return Value(result, value)
        members = enumerate(result.members)
        return tuple(Value(m, self.builder.extract_value(value, i)) for i, m in members)

    def variable(self, name: str) -> Any:
        """The value of a local variable, or None."""
        if name not in self.slots:
            return None
        declared, slot = self.slots[name]
        return Value(declared, self.builder.load(slot))

    def assign(self, name: str, given: Any) -> None:
        """Store into a local variable."""
        value = self.value(given)
        if name not in self.slots or (self.slots[name][0] != value.type and self.depth == 0):
            with self.builder.goto_block(self.entry):
                self.slots[name] = value.type, self.builder.alloca(value.type.ir, name=name)
        declared, slot = self.slots[name]
        if declared != value.type:
            raise TypeError(f"{self.tree.name}: {name} is {declared}, then {value.type}")
        self.builder.store(value.ir, slot)

    def block(self, statements: list[Any]) -> None:
        """Some statements; none that cannot be reached."""
        for statement in statements:
            if self.builder.block.is_terminated:
                return
            kind = type(statement).__name__
            emit = getattr(self, f"do_{kind.lower()}", None)
            if emit is None:
                raise TypeError(f"{kind} is not in the kernels' language: {ast.unparse(statement)}")
            emit(statement)

    def do_pass(self, _node: Any) -> None:
        """Nothing."""

    def do_expr(self, node: Any) -> None:
        """A call for what it does, or a docstring."""
        if isinstance(node.value, ast.Call):
            self.expression(node.value)

    def do_assign(self, node: Any) -> None:
        """One target: a name or several."""
        (target,) = node.targets
        value = self.expression(node.value)
        if isinstance(target, ast.Name):
            self.assign(target.id, value)
            return
        assert isinstance(value, tuple) and len(value) == len(target.elts)
        for name, member in zip(target.elts, value):
            self.assign(name.id, member)

    def do_augassign(self, node: Any) -> None:
        """x += y and its kind."""
        old = self.variable(node.target.id)
        value = self.value(self.binary(node.op, old, self.expression(node.value)))
        self.assign(node.target.id, value)

    def do_return(self, node: Any) -> None:
        """Of a number or several, all returns of the first one's types."""
        value = self.expression(node.value)
        if isinstance(value, tuple):
            values = [self.value(v) for v in value]
            self.result = self.result or Tuple(tuple(v.type for v in values))
            assert isinstance(self.result, Tuple)
            whole: Any = ir.Constant(_struct(self.result), ir.Undefined)
            for i, (v, declared) in enumerate(zip(values, self.result.members)):
                whole = self.builder.insert_value(whole, self.cast(v, declared).ir, i)
            self.builder.ret(whole)
            return
        one = self.value(value)
        self.result = self.result or one.type
        assert isinstance(self.result, Type)
        self.builder.ret(self.cast(one, self.result).ir)

    def do_if(self, node: Any) -> None:
        """Both branches, or the one that a constant takes."""
        test = self.truth(self.expression(node.test))
        if isinstance(test, bool):
            self.block(node.body if test else node.orelse)
            return
        then, other, after = (self.made.append_basic_block(n) for n in ("then", "else", "after"))
        self.builder.cbranch(test.ir, then, other)
        for start, body in ((then, node.body), (other, node.orelse)):
            self.builder.position_at_end(start)
            self.inside(body, after)
        self.builder.position_at_end(after)

    def inside(self, body: list[Any], after: Any) -> None:
        """A body that may or may not run, then go on."""
        self.depth += 1
        self.block(body)
        self.depth -= 1
        if not self.builder.block.is_terminated:
            self.builder.branch(after)

    def do_while(self, node: Any) -> None:
        """A loop."""
        head, body, after = (self.made.append_basic_block(n) for n in ("while", "body", "after"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        test = self.truth(self.expression(node.test))
        if isinstance(test, bool):
            self.builder.branch(body if test else after)
        else:
            self.builder.cbranch(test.ir, body, after)
        self.builder.position_at_end(body)
        self.loops.append((head, after))
        self.inside(node.body, head)
        self.loops.pop()
        self.builder.position_at_end(after)

    def do_for(self, node: Any) -> None:
        """A loop over a range, whose step is above 0 or a constant."""
        given = [self.value(self.expression(a)) for a in node.iter.args]
        bounds = [self.cast(v, types.int64).ir for v in given]
        zero, one = types.int64.ir(0), types.int64.ir(1)
        start, stop, step = [zero, *bounds, one] if len(bounds) == 1 else [*bounds, one][:3]
        down = isinstance(step, ir.Constant) and step.constant < 0
        with self.builder.goto_block(self.entry):
            slot = self.builder.alloca(types.int64.ir)
        head, body, further, after = (
            self.made.append_basic_block(n) for n in ("for", "body", "next", "after")
        )
        self.builder.store(start, slot)
        self.builder.branch(head)
        self.builder.position_at_end(head)
        at = self.builder.load(slot)
        test = self.builder.icmp_signed(">" if down else "<", at, stop)
        self.builder.cbranch(test, body, after)
        self.builder.position_at_end(body)
        self.depth += 1
        self.assign(node.target.id, Value(types.int64, at))
        self.depth -= 1
        self.loops.append((further, after))
        self.inside(node.body, further)
        self.loops.pop()
        self.builder.position_at_end(further)
        self.builder.store(self.builder.add(self.builder.load(slot), step, flags=("nsw",)), slot)
        self.builder.branch(head)
        self.builder.position_at_end(after)

    def do_continue(self, _node: Any) -> None:
        """To the loop's next turn."""
        self.builder.branch(self.loops[-1][0])

    def do_break(self, _node: Any) -> None:
        """Out of the loop."""
        self.builder.branch(self.loops[-1][1])


def _struct(kind: Tuple) -> Any:
    return ir.LiteralStructType([m.ir for m in kind.members])
