"""Ops along the last axis: softmax, log-softmax, softmax cross-entropy with its gradient."""

from __future__ import annotations

import math

from gpubp.backends.cuda.codegen.writer import Writer, ctype_of
from gpubp.backends.cuda.launch import THREADS, Context, Launch, source, status
from gpubp.compiler.parts import Part


class Rows:
    """What an op along rows needs of the source.

    Args:
        writer: of the part; declares the pointers.
        part: with such an op.
        context: of the program.

    Attributes:
        count: rows.
        lanes: threads that share one.
    """

    def __init__(self, writer: Writer, part: Part, context: Context) -> None:
        self._writer, self._part, self._context = writer, part, context
        first = part.body[0]
        shape = part.type_of(first.args[0]).shape
        self.columns = shape[-1]
        self.count = math.prod(shape) // self.columns
        self.lanes = _lanes(self.columns)
        entropy = part.kernel == "softmax_cross_entropy"
        self._name, self._ending = self._cross_entropy() if entropy else self._softmax()

    def call(self, first: str, stop: str) -> str:
        """The statement that computes as many rows from `first` on, below `stop`, as a block has
        room for.
        """
        return f"gp::{self._name}({first}, {stop}, {self._ending});"

    def _softmax(self) -> tuple[str, str]:
        writer, part = self._writer, self._part
        compute = part.body[0]
        log = "true" if compute.spec.name == "log_softmax" else "false"
        x = writer.pointer(part.inputs[compute.args[0]])
        y = writer.pointer(part.outputs[0][1], True)
        columns = writer.params.add("columns", self.columns)
        return f"softmax<{ctype_of(compute.dtype)}, {self.lanes}, {log}>", f"{columns}, {x}, {y}"

    def _cross_entropy(self) -> tuple[str, str]:
        writer, part = self._writer, self._part
        logits, labels = (part.inputs[i] for i in part.body[0].args[:2])
        dtype = ctype_of(logits.dtype)
        pointers = {"loss": "nullptr", "dx": "nullptr", "dloss": "nullptr"}
        step = 0
        outputs = dict(part.outputs)
        for i, compute in enumerate(part.body):
            out = outputs.get(len(part.inputs) + i)
            if out is None:
                continue
            if compute.spec.name.endswith("_grad"):
                scale = part.inputs[compute.args[2]]
                step = 0 if all(s == 0 for s in scale.strides) else 1
                pointers["dloss"] = writer.pointer(scale)
                pointers["dx"] = writer.pointer(out, True)
            else:
                pointers["loss"] = writer.pointer(out, True)
        x, found = writer.pointer(logits), writer.pointer(labels)
        columns = writer.params.add("columns", self.columns)
        dloss_step = writer.params.add("dloss_step", step)
        reported = status(writer, self._context)
        typed = {
            k: f"static_cast<{'const ' if k == 'dloss' else ''}{dtype}*>({v})"
            for k, v in pointers.items()
        }
        return (
            f"cross_entropy<{dtype}, {ctype_of(labels.dtype)}, {self.lanes}>",
            f"{columns}, {x}, {found}, {typed['dloss']}, {dloss_step}, {typed['loss']}, "
            f"{typed['dx']}, {reported}",
        )


def _lanes(columns: int) -> int:
    """Threads that share a row."""
    return next((w for limit, w in ((8, 1), (64, 8), (2048, 32)) if columns <= limit), 256)


def rowwise(part: Part, context: Context) -> list[Launch]:
    """The launch of an op along rows."""
    writer = Writer(part, context)
    rows = Rows(writer, part, context)
    stop = writer.params.add("rows", rows.count)
    body = [*writer.pointers, rows.call(f"gp::first_row<{rows.lanes}>()", stop)]
    text = source(["rowwise"], writer.params, [("kernel", THREADS, body)], blocks=1)
    grid = (-(-rows.count * rows.lanes // THREADS), 1, 1)
    return [Launch(text, "kernel", grid, (THREADS, 1, 1), writer.params.pack(), part.name)]
