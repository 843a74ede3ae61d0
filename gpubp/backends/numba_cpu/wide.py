"""Which operands the CPU kernels read and write row by row, however far rows are apart."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.backends.epilogues import find_epilogue
from gpubp.backends.numba_cpu import words
from gpubp.compiler.parts import Operand, Part
from gpubp.core import dtype_name


def wide_rows(part: Part) -> Sequence[Sequence[Operand]]:
    """See `Backend.wide_rows`."""
    if part.kernel == "matmul":
        return _of_product(part)
    if part.kernel == "reduce":
        return _of_sum(part)
    return ()


def _of_product(part: Part) -> list[list[Operand]]:
    """A and B, and C together with what is laid out as C; a chain reads and writes flat arrays."""
    assert part.anchor is not None
    product = part.body[part.anchor]
    if len(product.shape) != 2:
        return []
    epilogue = find_epilogue(part, words.epilogues(dtype_name(product.dtype)))
    operands = [part.inputs[a] for a in product.args]
    if epilogue is None and len(part.body) > 1:
        beside = _beside(part)
        return [[o] for o in operands if o not in beside]
    made = [o for _, o in part.outputs] if epilogue is None else [epilogue.target, *epilogue.state]
    return [[o] for o in operands] + [made]


def _of_sum(part: Part) -> list[list[Operand]]:
    """What is summed over rows, if nothing is computed before that."""
    assert part.anchor is not None
    total = part.body[part.anchor]
    source = total.args[0]
    plain = total.spec.name == "sum" and not part.ancestors(part.anchor)
    by_columns = plain and total.attrs["axis"] == (0,) and total.dtype.kind == "f"
    if not by_columns or part.inputs[source] in _beside(part):
        return []
    return [[part.inputs[source]]]


def _beside(part: Part) -> set[Operand]:
    """Inputs of other ops than the anchor."""
    others = [c for i, c in enumerate(part.body) if i != part.anchor]
    return {part.inputs[a] for c in others for a in c.args if a < len(part.inputs)}
