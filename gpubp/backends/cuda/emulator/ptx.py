"""PTX as text becomes functions, variables and instructions.

Comes in: what NVRTC writes (PTX ISA, "Syntax" and "Directives"). Goes out: a `Module`. Operands
stay texts: what they mean depends on the instruction. Names that live in a scope (`{ ... }`) get a
number, so that within a function each name is one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from gpubp.backends.cuda.emulator.faults import UnknownInstructionError

SIZES = {"pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2}
SIZES |= {"b32": 4, "u32": 4, "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4, "tf32": 4}
SIZES |= {"b64": 8, "u64": 8, "s64": 8, "f64": 8}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: with its modifiers, such as "ld.global.v2.f32".
        operands: as written; of a call: results, name, arguments.
        guard: the predicate register, and whether it must be true; None without one.
        line: of the CUDA source; 0 if it is not known.
    """

    opcode: str
    operands: tuple[str, ...] = ()
    guard: tuple[str, bool] | None = None
    line: int = 0

    @property
    def words(self) -> list[str]:
        """The opcode's parts: "ld", "global", "v2", "f32"."""
        return self.opcode.split(".")

    def __str__(self) -> str:
        return f"{self.opcode} {', '.join(self.operands)}".strip()


@dataclass(frozen=True)
class Label:
    """A place to jump to."""

    name: str


@dataclass(frozen=True)
class Variable:
    """Memory with a name.

    Attributes:
        space: "global", "const", "shared", "local" or "param".
        nbytes: 0 of an extern array, whose size the launch gives.
        element: bytes of an element.
        values: numbers or names, one an element; empty: zeros.
        kind: type of an element.
    """

    name: str
    space: str
    align: int
    nbytes: int
    element: int = 1
    values: tuple[str, ...] = ()
    kind: str = "b8"


@dataclass
class Function:
    """A kernel or a function.

    Attributes:
        entry: it is a kernel.
        params: in order; of a function also its results.
        registers: name, or start of numbered names -> type.
        targets: of tables of jumps: name -> labels.
        bounds: the most threads of a block that it was compiled for; 0: any.
    """

    name: str
    entry: bool
    params: list[Variable] = field(default_factory=list)
    results: list[Variable] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    targets: dict[str, list[str]] = field(default_factory=dict)
    body: list[Instruction | Label] = field(default_factory=list)
    bounds: int = 0


@dataclass
class Module:
    """All of a PTX file."""

    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)


_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LOC = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)[^\n]*$", re.MULTILINE)
_LINE_ONLY = re.compile(r"^\s*\.(?:version|target|address_size|file)\b[^\n]*$", re.MULTILINE)
_NAME = r"[\w$%.]+"
_VARIABLE = re.compile(
    r"\.(global|const|shared|local|param)\s+(?:\.align\s+(\d+)\s+)?(?:\.attribute\([^)]*\)\s*)?"
    rf"\.(\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)*?(?:\.align\s+\d+\s+)?)?({_NAME})(?:\[(\d*)\])?"
    r"(?:\s*=\s*(.+))?",
    re.DOTALL,
)
_HEADER = re.compile(
    rf"\.(entry|func)\s*(?:\((?P<results>[^)]*)\))?\s*(?P<name>{_NAME})\s*(?:\((?P<params>[^)]*)\))?",
    re.DOTALL,
)


def parse(text: str) -> Module:
    """A PTX file's functions and variables.

    Raises:
        UnknownInstructionError: a directive that this does not know.
    """
    text = _LOC.sub(lambda m: f".loc {m[1]} {m[2]};", _COMMENT.sub("", text))
    text = _LINE_ONLY.sub("", text)
    module = Module()
    for head, body in _pieces(text):
        if ".entry" in head or ".func" in head:
            if body is not None:
                function = _function(head, body)
                module.functions[function.name] = function
        elif head.startswith((".section", ".pragma")):
            continue
        else:
            variable = parse_variable(head)
            module.variables[variable.name] = variable
    return module


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """(text before, body in braces or None) of everything at the outermost level."""
    at = 0
    while match := re.compile(r"[;{]").search(text, at):
        head = text[at : match.start()].strip()
        if match[0] == "{" and "=" in head:
            end = text.index(";", match.end())
            yield text[at:end].strip(), None
            at = end + 1
        elif match[0] == ";":
            if head:
                yield head, None
            at = match.end()
        else:
            end = _closing(text, match.start())
            yield head, text[match.end() : end]
            at = end + 1


def _closing(text: str, start: int) -> int:
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if not depth:
            return match.start()
    raise UnknownInstructionError(text[start : start + 40], "a brace that is not closed")


def parse_variable(text: str) -> Variable:
    """A declaration, without its semicolon."""
    match = _VARIABLE.search(text)
    if match is None or match[3] not in SIZES:
        raise UnknownInstructionError(text, "a declaration of another kind")
    space, align, kind, name, count, init = match.groups()
    values = tuple(v.strip() for v in (init or "").strip(" {}\n\t").split(",") if v.strip())
    element = SIZES[kind]
    length = 1 if count is None else int(count or 0)
    return Variable(name, space, int(align or element), element * length, element, values, kind)


def _function(head: str, body: str) -> Function:
    match = _HEADER.search(head)
    if match is None:
        raise UnknownInstructionError(head, "a function of another kind")
    function = Function(match["name"], match[1] == "entry")
    for text, into in ((match["params"], function.params), (match["results"], function.results)):
        into += [parse_variable(p) for p in (text or "").split(",") if p.strip()]
    bounds = re.search(r"\.maxntid\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", head)
    if bounds:
        x, y, z = (int(n or 1) for n in bounds.groups())
        function.bounds = x * y * z
    _Body(function).read(body)
    return function


_STEP = re.compile(
    r"\s*(?:(?P<brace>[{}])|(?P<label>[$\w]+)\s*:(?!:)|(?P<rest>[^;{}]*(?:\{[^{}]*\}[^;{}]*)*);)"
)
_GUARD = re.compile(r"@(!?)(%[\w.$]+)\s+")
_WORD = re.compile(r"(?<![\w$%.])[%$A-Za-z_][\w$]*")


class _Body:
    """Reads the statements of one function."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._scopes: list[dict[str, str]] = [{}]
        self._count, self._line = 0, 0

    def read(self, text: str) -> None:
        at = 0
        while match := _STEP.match(text, at):
            at = match.end()
            if match["brace"] == "{":
                self._scopes.append({})
            elif match["brace"] == "}":
                self._scopes.pop()
            elif match["label"]:
                self._label(match["label"], text, at)
            elif match["rest"].strip():
                self._statement(" ".join(match["rest"].split()))
        if text[at:].strip():
            raise UnknownInstructionError(text[at:].strip()[:60], "this cannot be read")

    def _label(self, name: str, text: str, at: int) -> None:
        table = re.match(r"\s*\.branchtargets([^;]*);", text[at:])
        if table:
            self._function.targets[name] = [t.strip() for t in table[1].split(",")]
        self._function.body.append(Label(name))

    def _statement(self, text: str) -> None:
        if text.startswith(".loc "):
            self._line = int(text.split()[2]) or self._line
        elif text.startswith(".reg"):
            self._registers(text)
        elif text.startswith((".pragma", ".branchtargets")):
            return
        elif text.startswith("."):
            variable = parse_variable(text)
            if len(self._scopes) > 1:
                variable = replace(variable, name=self._fresh(variable.name))
            self._function.variables.append(variable)
        else:
            self._function.body.append(self._instruction(text))

    def _fresh(self, name: str) -> str:
        self._count += 1
        self._scopes[-1][name] = f"{name}${self._count}"
        return self._scopes[-1][name]

    def _registers(self, text: str) -> None:
        kind, names = re.match(r"\.reg\s+\.(\w+)\s+(.*)", text).groups()  # type: ignore[union-attr]
        for name in (n.strip() for n in names.split(",")):
            many = re.match(r"(.*)<\d+>", name)
            if many:
                self._function.registers[many[1]] = kind
            else:
                own = self._fresh(name) if len(self._scopes) > 1 else name
                self._function.registers[own] = kind

    def _instruction(self, text: str) -> Instruction:
        guard = None
        match = _GUARD.match(text)
        if match:
            guard, text = (match[2], not match[1]), text[match.end() :]
        opcode, _, rest = text.partition(" ")
        operands = tuple(self._renamed(o) for o in split(rest))
        return Instruction(opcode, operands, guard, self._line)

    def _renamed(self, operand: str) -> str:
        def own(match: re.Match[str]) -> str:
            for scope in reversed(self._scopes):
                if match[0] in scope:
                    return scope[match[0]]
            return match[0]

        return _WORD.sub(own, operand) if len(self._scopes) > 1 else operand


def split(text: str) -> list[str]:
    """Operands: at the commas that stand in no brackets."""
    found, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "{[(") - (letter in "}])")
        if letter == "," and not depth:
            found.append(text[start:i].strip())
            start = i + 1
    return [*found, text[start:].strip()] if text[start:].strip() else found
