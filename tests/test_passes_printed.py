"""What each pass of the compiler makes of one small model, as text.

The texts stand in tests/passes, one file a pass. After a change that is meant:
`python tests/test_passes_printed.py` writes them anew; read the difference before it is committed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.numba_cpu import NumbaBackend, words
from gpubp.backends.numba_cpu.encode import encoded_parts
from gpubp.backends.numba_cpu.wide import wide_rows
from gpubp.backends.numba_cpu.words import Layout
from gpubp.backends.numpy import NumpyBackend
from gpubp.compiler.listing import PASSES
from gpubp.compiler.parts import Operand, Part
from gpubp.errors import UnknownNameError

FOLDER = Path(__file__).parent / "passes"
X, Y = np.zeros((8, 6), np.float32), np.zeros(8, np.int64)


class Padding(NumpyBackend):
    """Takes wide rows as the CPU backend does, so that there is something to see after it."""

    def wide_rows(self, part: Part) -> Any:
        return wide_rows(part)


def small_step(backend: Any) -> gp.Step:
    """Two layers, ReLU, cross-entropy, SGD: 33 columns, which do not fill cache lines."""
    gp.manual_seed(4)
    model = nn.Sequential(nn.Linear(6, 33), nn.ReLU(), nn.Linear(33, 3))
    loss, optimizer = nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1)
    return gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend)


def shown(name: str) -> str:
    return small_step(Padding()).explain(X, Y, after=name) + "\n"


@pytest.mark.parametrize("name", PASSES)
def test_each_pass_makes_what_its_file_shows(name: str) -> None:
    assert shown(name) == (FOLDER / f"{name}.txt").read_text()


def test_every_file_is_that_of_a_pass() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(PASSES)


def test_the_last_pass_makes_the_program() -> None:
    step = small_step("numpy")
    program = step.prepare(X, Y)
    assert step.explain(X, Y) == str(program)
    assert step.explain(X, Y, after="encode") == str(program)  # NumPy runs it as it is


def test_explaining_runs_and_keeps_nothing() -> None:
    weight = nn.Parameter(np.ones((6, 1), np.float32))
    optimizer = optim.Adam([weight], lr=0.1)
    step = gp.compile_step(lambda x: gp.ops.mean(x @ weight), optimizer, backend="numpy")
    step.explain(X, after="encode")
    assert step.program is None
    np.testing.assert_array_equal(weight.value, 1.0)


def test_functions_are_explained_too() -> None:
    fn = gp.compile(lambda p: p["a"] * 2.0 + p["b"], backend="numpy")
    text = fn.explain({"a": np.ones(3), "b": np.ones(3)}, after="fuse")
    assert text.startswith("  0 multiply+add: ")
    assert fn({"a": np.ones(3), "b": np.ones(3)}).tolist() == [3.0, 3.0, 3.0]


def test_another_pass_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match=r"'fusion'.*Did you mean 'fuse'"):
        small_step("numpy").explain(X, Y, after="fusion")


def test_layouts_number_words_and_fill_them_in_by_name() -> None:
    layout = Layout("m n a@ spare:3 last")
    assert len(layout) == 8
    assert [layout[name] for name in ("m", "n", "a", "spare", "last")] == [0, 1, 2, 4, 7]
    assert layout.pack(n=5, a=(3, 64), last=-1) == [0, 5, 3, 64, 0, 0, 0, -1]
    with pytest.raises(ValueError, match="a has 2 words, but 1 were given"):
        layout.pack(a=3)


def _ways() -> dict[str, Callable[..., Any]]:
    ops = gp.ops
    return {
        "elementwise": lambda a: a * 2.0 + a[::-1],
        "softmax": ops.softmax,
        "reduce": lambda a: ops.sum(ops.exp(a), 0) * 3.0,
        "gather": lambda a: ops.gather(a, np.array([1, 2])),
        "scatter_add": gp.grad(lambda a: ops.sum(ops.gather(a, np.array([1, 1])) ** 2.0)),
        "concat": lambda a: ops.concat([a, a * 2.0], 0),
        "unslice": gp.grad(lambda a: ops.sum(a[1:] ** 2.0)),
        "scalar": lambda a: ops.sin(ops.sum(a)) * ops.cos(ops.sum(a)),
        "uniform": lambda a: a + ops.uniform((4, 3), dtype="float64"),
        "matmul and chain": lambda a: ops.exp(ops.sin(a @ a.T)) * 0.5,
        "custom": gp.custom_op("doubled_in_print", lambda x: x * 2.0),
    }


@pytest.mark.parametrize("name", _ways())
def test_encoded_parts_print_where_their_operands_are(name: str) -> None:
    """Every operand of a part, as `buffer@byte`, where the kernel finds it by itself."""
    fn = gp.compile(_ways()[name], backend=NumbaBackend(workers=1))
    text = fn.explain(np.ones((4, 3)), after="encode")
    fn(np.ones((4, 3)))
    program = fn._runner.last.program  # type: ignore[union-attr]
    blocks = _blocks(text)
    assert len(blocks) == len(program.parts)
    for part, block in zip(program.parts, blocks, strict=True):
        assert part.name in block.splitlines()[0]
        if part.kernel != "custom":
            operands = [o for o, _ in part.operands()]
            for operand in operands:
                assert _place(operand, program.buffers[operand.buffer].name) in block, block


def test_encoded_products_print_their_sizes_and_what_follows() -> None:
    text = small_step(NumbaBackend(workers=1)).explain(X, Y, after="encode")
    first = next(b for b in _blocks(text) if "matmul+add+relu" in b)
    for word in (
        "m=8 n=33 k=6",
        "epilogue=bias_relu",
        "tiles=tiles_bias_relu_float32",
        "a=resident0@0",
    ):
        assert word in first
    assert "nothing to do" in _blocks(text)[0]  # the product reads the batch where it is


def test_every_word_of_an_encoded_part_is_read() -> None:
    """Layouts and what is encoded agree on the number of words, part by part."""
    program = small_step(NumbaBackend(workers=1)).prepare(X, Y)
    sizes = {"matmul": len(words.MM), "cross_entropy": len(words.CROSS_ENTROPY)}
    for encoded in encoded_parts(program):
        family = encoded.kernel.rsplit("_", 1)[0] if encoded else ""
        if encoded is not None and family in sizes:
            assert len(encoded.words) == sizes[family]


MODELS = {
    "convolution and ReLU": lambda: (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
    "BatchNorm": lambda: (nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.GELU()),
    "pools": lambda: (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.AvgPool2d(3), nn.ReLU()),
    "transposed": lambda: (nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Tanh()),
    "attention": lambda: (nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
    "recurrent": lambda: (nn.Flatten(1, 2), nn.GRU(8, 5, batch_first=True), First()),
}


class First(nn.Module):
    def forward(self, pair: Any) -> Any:
        return pair[0]


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_every_kind_of_model_are_shown(name: str) -> None:
    model = nn.Sequential(*MODELS[name](), nn.Flatten(), nn.LazyLinear(3))
    loss, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.1)
    backend = NumbaBackend(workers=1)
    step = gp.compile_step(lambda x, y: loss(model(x), y), optimizer, backend=backend)
    images = np.zeros((4, 3, 8, 8), np.float32)
    program = step.prepare(images, Y[:4])
    blocks = _blocks(step.explain(images, Y[:4], after="encode"))
    assert len(blocks) == len(program.parts)
    for block, part in zip(blocks, program.parts, strict=True):
        assert part.name in block and len(block.splitlines()) > 1


def _place(operand: Operand, name: str) -> str:
    return f"{name}@{operand.place[1]}"


def _blocks(text: str) -> list[str]:
    """One for each part: a line with its number and name, and what is indented below."""
    found: list[str] = []
    for line in text.splitlines():
        if line[:4].strip():
            found.append(line)
        else:
            found[-1] += f"\n{line}"
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in sys.argv[1:] or PASSES:
        (FOLDER / f"{each}.txt").write_text(shown(each))
