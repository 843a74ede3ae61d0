"""A kernel with the functions that it calls written out: one list of instructions.

Comes in: a `Module` and a kernel's name. Goes out: `Flat`. Names of a called function get a number,
its parameters become the caller's (`.param` memory of calls is memory in name only: each place is
written before the call and read after it), and its `ret` jumps behind the call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.ptx import Function, Instruction, Label, Module, Variable

_WORD = re.compile(r"(?<![\w$%.])[%$A-Za-z_][\w$]*")
_DEEPEST = 40
EXTERNAL = ("vprintf", "__assertfail", "cudaGraphSetConditional")  # what the emulator does itself


@dataclass
class Flat:
    """A kernel without calls but those of EXTERNAL.

    Attributes:
        registers: as of `Function`.
        variables: shared and local ones, of the functions that were called, too.
        kernel: the function that it was made of.
    """

    kernel: Function
    body: list[Instruction | Label] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    targets: dict[str, list[str]] = field(default_factory=dict)


def flatten(module: Module, name: str) -> Flat:
    """Write out a kernel.

    Raises:
        UnknownInstructionError: it calls through a pointer, itself, or what is in no library here.
    """
    kernel = module.functions[name]
    return _Inliner(module, Flat(kernel)).run(kernel)


class _Inliner:
    def __init__(self, module: Module, flat: Flat) -> None:
        self._module, self._flat, self._calls = module, flat, 0

    def run(self, kernel: Function) -> Flat:
        self._write(kernel, "", {}, "", 0)
        return self._flat

    def _write(
        self, function: Function, mark: str, params: dict[str, str], end: str, depth: int
    ) -> None:
        """`params`: formal names -> the caller's; `end`: label behind the call."""
        if depth > _DEEPEST:
            raise UnknownInstructionError(f"call {function.name}", "a function that calls itself")
        flat = self._flat
        names = self._own_names(function, mark, params)
        for register, kind in function.registers.items():
            flat.registers[_marked(register, mark)] = kind
        flat.variables += [
            replace(v, name=names.get(v.name, v.name))
            for v in function.variables
            if v.space != "param"
        ]
        for table, labels in function.targets.items():
            flat.targets[names.get(table, table)] = [names.get(t, t) for t in labels]
        for step in function.body:
            if isinstance(step, Label):
                flat.body.append(Label(names.get(step.name, step.name)))
                continue
            step = _renamed(step, names, mark, function)
            words = step.words
            if words[0] == "call":
                self._call(step, depth)
            elif words[0] == "ret" and end:
                flat.body.append(replace(step, opcode="bra", operands=(end,)))
            else:
                flat.body.append(step)

    def _own_names(self, function: Function, mark: str, params: dict[str, str]) -> dict[str, str]:
        """What is called otherwise in this copy."""
        names = dict(params)
        if mark:
            own = [s.name for s in function.body if isinstance(s, Label)]
            own += [v.name for v in function.variables if v.space != "shared"]
            names |= {n: f"{n}{mark}" for n in (*own, *function.targets)}
        return names

    def _call(self, step: Instruction, depth: int) -> None:
        results, name, given = _parts(step)
        called = self._module.functions.get(name)
        if called is None:
            if name not in EXTERNAL:
                raise UnknownInstructionError(
                    str(step), f"a call of {name}, whose code is not here"
                )
            self._flat.body.append(
                replace(step, opcode=f"call.{name}", operands=(*results, *given))
            )
            return
        if step.guard is not None:
            raise UnknownInstructionError(str(step), "a call under a condition")
        self._calls += 1
        mark = f"${self._calls}f"
        formal = [v.name for v in (*called.params, *called.results)]
        actual = [*given, *results]
        if len(formal) != len(actual):
            raise UnknownInstructionError(
                str(step), "another number of arguments than the function has"
            )
        end = f"$end{mark}"
        self._write(called, mark, dict(zip(formal, actual)), end, depth + 1)
        self._flat.body.append(Label(end))


def _parts(step: Instruction) -> tuple[list[str], str, list[str]]:
    """Of a call: results, name, arguments."""
    operands = list(step.operands)
    results: list[str] = []
    if operands and operands[0].startswith("("):
        results = _listed(operands.pop(0))
    name = operands.pop(0)
    return results, name, _listed(operands.pop(0)) if operands else []


def _listed(text: str) -> list[str]:
    return [t.strip() for t in text.strip("() ").split(",") if t.strip()]


_NUMBERED = re.compile(r"(.*?\D)\d+$")


def _marked(register: str, mark: str) -> str:
    """Numbers are appended to names of registers, so the mark of a call stands before them."""
    if not mark or not register.startswith("%"):
        return register + mark
    return f"%{mark[1:]}{mark[:1]}{register[1:]}"


def _renamed(
    step: Instruction, names: dict[str, str], mark: str, function: Function
) -> Instruction:
    def own(match: re.Match[str]) -> str:
        word = match[0]
        if word in names:
            return names[word]
        if mark and is_register(word, function.registers):
            return _marked(word, mark)
        return word

    if not names and not mark:
        return step
    guard = step.guard and (_WORD.sub(own, step.guard[0]), step.guard[1])
    operands = tuple(_WORD.sub(own, o) for o in step.operands)
    return replace(step, operands=operands, guard=guard)


def is_register(word: str, registers: dict[str, str]) -> bool:
    """A name that was declared, by itself or as one of a numbered row."""
    return register_type(word, registers) is not None


def register_type(word: str, registers: dict[str, str]) -> str | None:
    """The type of a register; None if this is none."""
    if word in registers:
        return registers[word]
    match = _NUMBERED.match(word)
    return registers.get(match[1]) if match else None
