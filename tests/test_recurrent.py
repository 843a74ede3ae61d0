"""Recurrent layers: loops and programs, lengths, workers, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numpy import NumpyBackend
from gpubp.errors import ArgumentError, DataError, DTypeError, ShapeError, UnknownNameError
from gpubp.nn.utils import rnn

LENGTHS = np.array([2, 5, 0, 3])


class Unrolled(NumpyBackend):
    """Runs no loops: they come written out."""

    runs_loops = False


class UnrolledNative(NumbaBackend):
    runs_loops = False


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "RNN": lambda: nn.RNN(3, 4, nonlinearity="relu"),
    "LSTM": lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2),
    "GRU": lambda: nn.GRU(3, 4, bidirectional=True),
    "GRU that resets first": lambda: nn.GRU(3, 4, reset_after=False),
}


def layer(name: str) -> Any:
    gp.manual_seed(3)
    return LAYERS[name]()


def padded(dtype: str = "float32") -> Any:
    return np.random.default_rng(4).standard_normal((5, 4, 3)).astype(dtype)


def flat(found: Any) -> list[Any]:
    out, state = found
    return [out, *(state if isinstance(state, tuple) else (state,))]


def total(model: Any) -> Callable[..., Any]:
    def loss(x: Any, lengths: Any) -> Any:
        return sum(ops.sum(a * a) for a in flat(model(x, None, lengths)))

    return gp.value_and_grad(loss)


@pytest.mark.parametrize("name", LAYERS)
def test_loops_give_the_bits_of_loops_written_out(name: str) -> None:
    """Values and gradients, and for any number of workers."""
    fn, given = total(layer(name)), (padded(), LENGTHS)
    for loops, written_out in ((NumpyBackend(), Unrolled()), (NumbaBackend(), UnrolledNative())):
        runs = [gp.compile(fn, backend=b)(*given) for b in (loops, written_out)]
        for a, b in zip(*runs, strict=True):
            assert_same(a, b)
    one, three = (gp.compile(fn, backend=NumbaBackend(workers=n))(*given) for n in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("backend", ["numpy", "numba", "at once"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_batch_with_lengths_is_each_sequence_by_itself(name: str, backend: str) -> None:
    model, x = layer(name), padded()
    run = model if backend == "at once" else gp.compile(model, backend=backend)
    found = flat(run(x, None, LENGTHS))
    for i, n in enumerate(LENGTHS):
        if not n:
            assert not any(np.any(np.asarray(a)[:, i]) for a in found)
            continue
        alone = flat(model(x[:n, i]))
        for a, b in zip(found, alone, strict=True):
            np.testing.assert_allclose(np.asarray(a)[: len(b), i], b, rtol=1e-5, atol=1e-6)
        assert not np.any(np.asarray(found[0])[n:, i])


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_behind_the_end_has_no_say(name: str) -> None:
    """Neither in values nor in gradients, and NaN stays where it is."""
    fn, x = total(layer(name)), padded()
    value, slope = fn(x, LENGTHS)
    behind = np.arange(5)[:, None] >= LENGTHS
    x[behind] = 1e30
    other, same = fn(x, LENGTHS)
    assert_same(value, other)
    assert_same(slope[~behind], same[~behind])
    assert not np.any(same[behind])


def test_cells_are_one_round_of_layers() -> None:
    x = padded()
    for cell_type, layer_type in ((nn.LSTMCell, nn.LSTM), (nn.GRUCell, nn.GRU)):
        one, many = cell_type(3, 4), layer_type(3, 4)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(one, name).value = getattr(many, f"{name}_l0").value
        state: Any = None
        for t in range(5):
            state = one(x[t], state)
        expected = [np.asarray(s)[0] for s in flat(many(x))[1:]]
        found = state if isinstance(state, tuple) else (state,)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_product_with_inputs_stands_before_the_loop() -> None:
    """And a program has one size for all lengths."""
    sizes = []
    for length in (4, 400):
        fn = gp.compile(total(nn.LSTM(3, 4)), backend="numpy")
        fn(np.ones((length, 2, 3), np.float32), np.array([1, 3]))
        program = fn._runner.last.program
        sizes.append(len(program.parts))
        inside = [p.body_program.program for p in program.parts if p.body_program]
        products = [str(p) for body in inside for p in body.parts if "matmul" in str(p)]
        assert len(products) == len(inside) == 2
    assert sizes[0] == sizes[1]


def test_dropout_is_between_layers_and_while_training() -> None:
    gp.manual_seed(1)
    model, x = nn.GRU(3, 8, 2, dropout=0.5), padded()
    first, second = (np.asarray(model(x)[0]) for _ in range(2))
    assert np.any(first != second)
    model.eval()
    first, second = (np.asarray(model(x)[0]) for _ in range(2))
    assert_same(first, second)


def test_packed_sequences_go_in_and_out_of_programs() -> None:
    model, x = nn.LSTM(3, 4), padded()
    packed = rnn.pack_padded_sequence(x, [2, 4, 1, 3], enforce_sorted=False)
    assert packed.data.shape == (4, 4, 3)
    found = gp.compile(model)(packed)[0]
    assert isinstance(found, rnn.PackedSequence)
    expected = model(x, None, packed.lengths)[0]
    np.testing.assert_allclose(found.data, np.asarray(expected)[:4], rtol=1e-5, atol=1e-6)


X = padded()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(0, 4), ShapeError, "at least 1"),
        (lambda: nn.LSTM(3, 4, proj_size=4), ShapeError, "not below hidden_size"),
        (lambda: nn.GRU(3, 4, dropout=1.5), DataError, "between 0 and 1"),
        (lambda: nn.RNN(3, 4, nonlinearity="selu"), UnknownNameError, "nonlinearity"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="selu"), UnknownNameError, "nonlinearity"),
        (lambda: nn.RNNCell(3, 0), ShapeError, "at least 1"),
        (lambda: nn.LSTM(3, 4)(X[..., :2]), ShapeError, r"expected \(T, N, 3\)"),
        (lambda: nn.GRU(3, 4)(X, np.zeros((1, 3, 4))), ShapeError, r"expected \(1, 4, 4\)"),
        (lambda: nn.LSTM(3, 4)(X, np.zeros((1, 4, 4))), ArgumentError, "a pair"),
        (lambda: nn.LSTM(3, 4)(X, None, [1, 2]), ShapeError, "each of 4 sequences"),
        (lambda: nn.LSTM(3, 4)(X, None, [1, 2, 3, 6]), DataError, "length of 6"),
        (lambda: nn.LSTM(3, 4)(X, None, [1.0, 2.0, 3.0, 4.0]), DTypeError, "int32 or int64"),
        (lambda: nn.LSTMCell(3, 4)(X[0], X[0]), ArgumentError, "a pair"),
        (lambda: nn.GRUCell(3, 4)(X), ShapeError, r"expected \(N, 3\)"),
        (lambda: nn.GRUCell(3, 4)(X[0], X[0]), ShapeError, r"expected \(4, 4\)"),
        (lambda: rnn.pack_padded_sequence(X, [1, 2, 3, 4]), DataError, "enforce_sorted"),
        (lambda: rnn.pack_padded_sequence(X, [4, 3, 2, 0]), DataError, "length of 0"),
        (lambda: rnn.pad_sequence([]), ArgumentError, "no sequence"),
        (lambda: rnn.pad_sequence([X, X[0]]), ShapeError, "have to be equal"),
        (lambda: rnn.pad_sequence([X], padding_side="top"), ArgumentError, "padding_side"),
        (
            lambda: rnn.pad_packed_sequence(rnn.pack_sequence([X]), total_length=2),
            DataError,
            "total_length",
        ),
        (
            lambda: nn.LSTM(3, 4)(rnn.pack_sequence([X[:, 0]]), None, [5]),
            ArgumentError,
            "its own lengths",
        ),
        (
            lambda: gp.compile(lambda x, n: rnn.unpad_sequence(x, n))(X, LENGTHS),
            ArgumentError,
            "shapes are static",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
