"""Every result that a part promises is written, and verification finds one that is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from registered import BACKENDS
from tolerances import assert_close
from written import join_every_gradient, pullbacks

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import encode, words
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.poison import check_writes
from gpubp.compiler.parts import Operand
from gpubp.compiler.pipeline import compile_graph
from gpubp.compiler.program import Program
from gpubp.compiler.trace import trace
from gpubp.errors import VerificationError

PLAIN = gp.Options(fuse=False)
SHAPES = [(6,), (1,), (3, 4), (70,)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_pullback_has_its_gradient(count: int, used: bool, backend: str) -> None:
    for shape in SHAPES:
        fn, args = pullbacks(count, used, *shape)
        expected = gp.compile(fn, backend="numpy", options=PLAIN)(*args)
        found = gp.compile(fn, backend=backend)(*args)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, f"{count} pullbacks of {shape}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_two_losses_of_the_same_logits(backend: str) -> None:
    """The mean and a weighted sum of one cross-entropy, in a training step."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(12, 4)), rng.integers(0, 3, 12)
    steps = []
    for options in (PLAIN, gp.Options()):
        gp.manual_seed(2)
        model = nn.Linear(4, 3, dtype="float64")

        def loss(x: Any, t: Any) -> Any:
            value, pull = gp.vjp(lambda z: ops.softmax_cross_entropy(z, t), model(x))  # noqa: B023
            (plain,), (weighted,) = pull(value * 0.0 + 1.0), pull(value)
            return ops.mean(value) + ops.mean(ops.square(plain)) + ops.mean(plain * weighted)

        step = gp.compile_step(
            loss, optim.SGD(model.parameters(), lr=0.5), backend=backend, options=options
        )
        steps.append([step(x, t) for _ in range(4)])
    assert_close(steps[1], steps[0])


def test_a_pass_makes_one_gradient() -> None:
    fn, args = pullbacks(3, True, 6)
    program = compile_graph(trace(fn, args)[0])
    bodies = [[c.spec.name for c in part.body] for part in program.parts]
    assert sorted(len(b) for b in bodies) == [1, 1, 2]


def test_an_encoder_that_leaves_out_a_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    join_every_gradient(monkeypatch)
    fn, args = pullbacks(2, True, 6)
    with pytest.raises(VerificationError, match="the CPU encoder left out %"):
        gp.compile(fn, backend="numba", options=gp.Options(verify=False))(*args)


def test_a_result_that_is_not_written_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    join_every_gradient(monkeypatch)
    monkeypatch.setattr(encode, "_require_outputs", lambda *_: None)
    fn, args = pullbacks(2, True, 6)
    with pytest.raises(VerificationError, match="does not write all of %"):
        gp.compile(fn, backend="numba", options=gp.Options(verify=True))(*args)


# Functions whose program has the part, and the word that tells its kernel how much to do.
SHORT: dict[str, tuple[Any, int]] = {
    "elementwise": (lambda x: ops.tanh(x) + x, 0),
    "reduce": (lambda x: ops.sum(x, 1), words.RED_PER_ROW),
    "matmul": (lambda x: x @ x, words.MM_N),
    "softmax": (ops.softmax, 1),
    "softmax_cross_entropy": (
        lambda x: ops.softmax_cross_entropy(x, ops.astype(x[:, 0] * 0.0, "int64")),
        1,
    ),
    "gather": (lambda x: ops.gather(x, ops.astype(x[:, 0] * 0.0, "int64")), 3),
    "concat": (lambda x: ops.concat([x, x], 1), 1),
    "unslice": (gp.grad(lambda x: ops.sum(x[1:, ::2])), 0),
}


@pytest.mark.parametrize("kernel", SHORT)
def test_a_kernel_that_stops_early_is_found(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn, word = SHORT[kernel]
    x = np.random.default_rng(0).normal(size=(8, 8))
    gp.compile(fn, backend="numba")(x)
    plain = encode.encode

    def shortened(part: Any, *args: Any) -> EncodedPart | None:
        found = plain(part, *args)
        if found is not None and part.kernel == kernel:
            found.words[word] //= 2
        return found

    monkeypatch.setattr(encode, "encode", shortened)
    with pytest.raises(VerificationError, match="does not write all of %"):
        gp.compile(fn, backend="numba")(x)


class _Memory:
    """A trial whose parts make ones, except for some elements, which they leave as they were."""

    def __init__(self, program: Program, left: Any = None) -> None:
        self.program, self.left = program, left
        self.bytes = [np.zeros(b.nbytes, np.uint8) for b in program.buffers]

    def run(self, position: int) -> bool:
        for _, operand in self.program.parts[position].outputs:
            size = operand.dtype.itemsize
            content = np.ones(operand.shape, operand.dtype).view(f"u{size}").reshape(-1)
            if self.left is not None:
                content[self.left] = self.fetch(operand).view(content.dtype)[self.left]
            self.fetch(operand)[...] = content.view(np.uint8)
        return True

    def fetch(self, operand: Operand) -> NDArray[np.uint8]:
        first, last = operand.extent
        return self.bytes[operand.buffer][first:last]

    def put(self, operand: Operand, content: NDArray[np.uint8]) -> None:
        pass


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("which", [0, -1, slice(2, 5), slice(None)])
def test_poison_shows_in_every_dtype(which: Any, dtype: str) -> None:
    x = np.ones((3, 4), dtype)
    program = compile_graph(trace(ops.copy, [x])[0])
    check_writes(program, _Memory(program))
    with pytest.raises(VerificationError, match="copy does not write all of %"):
        check_writes(program, _Memory(program, which))


def test_labels_out_of_range_are_no_fault_of_the_kernel() -> None:
    """Zeros are no valid indices of every program."""
    fn = gp.compile(lambda x, i: ops.gather(x, i - 1), backend="numba")
    x = np.arange(12.0).reshape(4, 3)
    assert_close(fn(x, np.array([1, 4])), x[[0, 3]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_verification_leaves_parameters_and_generators_alone(backend: str) -> None:
    results = []
    for verify in (False, True):
        gp.manual_seed(5)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        step = gp.compile_step(
            lambda x: ops.mean(ops.square(model(x))),  # noqa: B023
            optimizer,
            backend=backend,
            options=gp.Options(verify=verify),
        )
        x = np.random.default_rng(1).normal(size=(10, 3)).astype(np.float32)
        results.append([*(step(x) for _ in range(3)), *(p.numpy() for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
