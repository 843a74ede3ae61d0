"""How the columns of a file write their numbers: decimal commas, thousands, money, percent, units.

Comes in: columns of text. Goes out: for each column that holds numbers, a `Writing`, which turns
its cells into numbers. Cells are never judged one by one: "3,750" is 3750 beside "1,234.50", and
3.75 beside "12,5". A column is read as most of its cells are, so that a mistyped one is an error at
its place; where its cells leave it open, the rest of the file decides, then what separates its
columns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from gpubp.data.cells import Cells, as_cells
from gpubp.data.gaps import is_missing

POINT, COMMA = ".", ","

_SIGNS = "$€£¥₹₽₩₺₪฿₫₴₦₱"
_CODES = (
    "AUD|BRL|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HKD|HUF|ILS|INR|JPY|KRW|MXN|NOK|NZD|PLN|RUB|SEK|SGD|THB|"
    "TRY|TWD|USD|ZAR|Rs|Fr|kr|zł"
)
_MONEY = rf"(?:[A-Z]{{1,2}})?[{_SIGNS}]|(?:{_CODES})\.?"
# Units that may follow a number without a space: others, such as the letter of "12b", are names.
_KNOWN = (
    "kg g mg µg lb lbs oz t km m cm mm µm nm mi ft in yd km/h mph m/s m2 m² m3 m³ km2 km² ha "
    "l L ml mL cl gal hp kW kWh Hz kHz MHz GHz kB KB MB GB TB K k M Mio Mrd bn Pa hPa kPa "
    "bar psi d day days h hr hrs hour hours min mins minutes s sec secs ms yr yrs year years y "
    "px pt pts x cc rpm kcal kJ dB cal °C °F ° % ‰"
)
_UNITS = frozenset(_KNOWN.split())
_WORD = r"[^\W\d_][\w./²³]{0,14}"
_CELL = re.compile(
    rf"""(?P<open>\()?\s* (?P<sign>[+-])?\s* (?P<before>{_MONEY})?\s* (?P<inner>[+-])?\s*
    (?P<body>(?:\d(?:[\d.,'\ ]*[\d.,])?|[.,]\d+)(?:[eE][+-]?\d+)?)
    (?P<gap>\s*) (?P<after>%|‰|°[CF]?|{_MONEY}|{_WORD})? \s*(?P<close>\))?""",
    re.VERBOSE,
)
_GROUPS = r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|[1-9]\d{0,2}(?:[ ']\d{3})+"
_WITH_POINT = re.compile(rf"(?:{_GROUPS}|\d*)(?:\.\d*)?(?:[eE][+-]?\d+)?")
_BEGINNING = re.compile(rf"[(<>~≤≥±+-]*\s*(?:{_MONEY})?\s*[+-]?[.,]?\d")
_SPACES = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'"})
_SWAP = str.maketrans(".,", ",.")


def as_number(cell: str) -> float | None:
    """The number that a cell holds as Python writes it, or None."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def label_key(label: object) -> object:
    """What two spellings of one label share: a number's value ("0", "0.0", 0), else the label.

    A code with leading zeros is no number.
    """
    text = str(label) if isinstance(label, (str, float)) else label
    if not isinstance(text, str) or re.match(r"[+-]?0\d", text) or as_number(text) is None:
        return label
    try:
        return Decimal(text)  # exact: long numbers that differ in the last digit stay apart
    except InvalidOperation:
        return label


def like_numbers(cells: Iterable[str]) -> bool:
    """Whether most of these texts begin as numbers do, whatever follows."""
    found = [bool(_BEGINNING.match(cell)) for cell in cells]
    return sum(found) * 2 > len(found)


@dataclass(frozen=True)
class Writing:
    """How a column writes its numbers.

    Attributes:
        decimal: POINT or COMMA.
        unit: what stands before and behind them, such as "$", "%" or "kg".
        row: of the first cell that Python would not read so; -1 if there is none.
        doubt: what could be meant otherwise, and what to do then.
        problem: why the column cannot be read as numbers.
    """

    decimal: str = POINT
    unit: str = ""
    row: int = -1
    doubt: str = ""
    problem: str = ""

    def number(self, cell: str) -> float | None:
        """The number in a cell of the column, or None."""
        if self.decimal == POINT:
            plain = as_number(cell)
            if plain is not None and (not self.unit or plain == 0):
                return plain
        found = _parsed(cell)
        if found is None:
            return None
        value = found.value(self.decimal)
        return value if value == 0 or found.unit == self.unit else None

    def wrong(self, cell: str) -> str:
        """What is wrong with a cell that is no number, or nothing particular."""
        found = _parsed(cell)
        if found is None:
            return ""
        if found.unit != self.unit:
            kind = f"the unit {found.unit!r}" if found.unit else "no unit"
            rest = f"{self.unit!r}" if self.unit else "none"
            return f"it has {kind}, the others have {rest}"
        names = {POINT: "decimal point", COMMA: "decimal comma"}
        if found.value(COMMA if self.decimal == POINT else POINT) is not None:
            return f"the others are written with a {names[self.decimal]}"
        return ""


@dataclass(frozen=True)
class _Parsed:
    """A number as it is written."""

    sign: float
    body: str
    unit: str
    known: bool  # the unit, as one

    @property
    def readable(self) -> bool:
        return self.value(POINT) is not None or self.value(COMMA) is not None

    def value(self, decimal: str) -> float | None:
        body = self.body if decimal == POINT else self.body.translate(_SWAP)
        if not _WITH_POINT.fullmatch(body):
            return None
        return self.sign * float(re.sub(r"[ ,']", "", body))


def _parsed(cell: str) -> _Parsed | None:
    match = _CELL.fullmatch(cell.translate(_SPACES))
    if match is None or bool(match["open"]) != bool(match["close"]):
        return None
    signs = [s for s in (match["open"], match["sign"], match["inner"]) if s]
    if len(signs) > 1:
        return None
    before, after = match["before"] or "", match["after"] or ""
    money = after and re.fullmatch(_MONEY, after)
    if after and not match["gap"] and after not in _UNITS and not money:
        return None
    if match["body"][-1] in ".," and after and after not in _UNITS and not money:
        return None  # a name with its number: "2. Married"
    # One day, two days.
    after = after.rstrip(".")
    unit = before + (after[:-1] if after.endswith("s") and after[:-1] in _UNITS else after)
    return _Parsed(
        -1.0 if signs and signs[0] in "(-" else 1.0,
        match["body"],
        unit,
        not after or after in _UNITS or bool(money),
    )


def survey(
    columns: Mapping[str, Sequence[str]], delimiter: str, decimal: str | None = None
) -> dict[str, Writing]:
    """The columns of numbers, and how each writes them.

    Args:
        columns: name -> cells.
        delimiter: what separates the columns of the file.
        decimal: POINT or COMMA if that is known.
    """
    found = {name: look for name, cells in columns.items() if (look := _look(cells)) is not None}
    strict = {look.strict for look in found.values()} - {""}
    known = decimal or (strict.pop() if len(strict) == 1 else "")
    return {name: look.writing(known, delimiter, decimal) for name, look in found.items()}


@dataclass(frozen=True)
class _Look:
    """What the cells of a column of numbers say.

    Attributes:
        unit: of most of them.
        row: of the first that is not plain, or -1.
        strict: the decimal sign, if they can be read with one only; "" if they leave it open.
        open: a cell that means different numbers with one and the other, or "".
        open_row: of that cell, or -1.
    """

    unit: str
    row: int
    strict: str
    open: str
    open_row: int

    def writing(self, known: str, delimiter: str, asked: str | None) -> Writing:
        """How to read the column, given what is known of the file."""
        base = Writing(self.strict or POINT, self.unit, self.row)
        if asked:
            return replace(base, decimal=asked)
        if not self.open:
            return base
        if COMMA not in self.open and known != COMMA:
            return base  # as every program writes numbers
        guess = known or {",": POINT, ";": COMMA}.get(delimiter, "")
        other = COMMA if guess == POINT else POINT
        values = {d: _shown(_parsed(self.open), d) for d in (POINT, COMMA)}
        if not guess:
            return replace(
                base,
                problem=f"{self.open!r} can mean {values[POINT]} or {values[COMMA]}. Say which "
                "(--decimal point or --decimal comma)",
            )
        word = "point" if other == POINT else "comma"
        doubt = f"{values[guess]}; if {values[other]} is meant, add --decimal {word}"
        return replace(base, decimal=guess, doubt=doubt, row=self.open_row)


def _shown(found: _Parsed | None, decimal: str) -> str:
    value = None if found is None else found.value(decimal)
    return f"{value:.10g}"


def _look(given: Sequence[str]) -> _Look | None:
    """None if the cells are not numbers for the most part."""
    cells = as_cells(given)
    if cells.plain is not None:
        strict, doubtful = _of_plain(cells)
        return _Look("", -1, strict, doubtful, cells.index(doubtful) if doubtful else -1)
    counts = Counter(cells.counts)
    for cell in [c for c in counts if is_missing(c)]:
        del counts[cell]
    plain = {cell for cell in counts if as_number(cell) is not None}
    parsed = {cell: p for cell in counts if (p := _parsed(cell)) is not None and p.readable}
    numbers = {*plain, *parsed}
    if sum(counts[c] for c in numbers) * 2 <= counts.total():
        return None
    units: Counter[str] = Counter()
    for cell in numbers:
        found = parsed.get(cell)
        if found is None or found.value(POINT) != 0:
            units[found.unit if found else ""] += counts[cell]
    unit = units.most_common(1)[0][0] if units else ""
    if units[unit] * 2 <= units.total() and not all(p.known for p in parsed.values()):
        return None  # such as 1st, 2nd, 3rd
    if _are_numbered(parsed.values()):
        return None
    kept = {c: p for c, p in parsed.items() if p.unit == unit}
    strict, doubtful = _decimal(kept, counts)
    shown = {c for c, p in kept.items() if c not in plain and p.value(strict or POINT) is not None}
    first = next((i for i, cell in enumerate(cells) if cell in shown), -1)
    return _Look(unit, first, strict, doubtful, cells.index(doubtful) if doubtful else -1)


def _are_numbered(found: Iterable[_Parsed]) -> bool:
    """Whether these are names with their numbers (1 White, 2 Black): each has one of its own."""
    numbered = {(p.unit, p.body) for p in found if not p.known}
    words = {unit for unit, _ in numbered}
    return len(words) > 1 and len(numbered) == len(words)


def _of_plain(cells: Cells) -> tuple[str, str]:
    """`_decimal` of a column whose cells Python reads: one with a point that groups nothing."""
    doubtful = ""
    for cell in cells.containing(POINT):
        found = _parsed(cell)
        if found is not None and found.value(COMMA) is None:
            return POINT, ""
        doubtful = doubtful or ("" if found is None else cell)
    return "", doubtful


def _decimal(parsed: Mapping[str, _Parsed], counts: Counter[str]) -> tuple[str, str]:
    """The decimal sign that most cells need ("": either will do), and a cell that may mean two."""
    need: Counter[str] = Counter()
    doubtful = ""
    for cell, found in parsed.items():
        point, comma = found.value(POINT), found.value(COMMA)
        if (point is None) != (comma is None):
            need[COMMA if point is None else POINT] += counts[cell]
        elif point != comma and (not doubtful or (COMMA in cell and COMMA not in doubtful)):
            doubtful = cell
    return (need.most_common(1)[0][0], "") if need else ("", doubtful)
