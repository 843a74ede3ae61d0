"""What sequences, places and tables need, on the CUDA test device: programs with their gradients.

Modules come from the table of all modules, array functions from that of all functions of places,
optimisers from that of all optimisers; each is compared with the NumPy backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import optimizers
import pytest
import shim_build
from changes import MODULES, Inputs, X, Y
from place_calls import COUNT_CALLS, PLACE_CALLS, place_operands
from shim_backend import shim_backend
from tolerances import ORACLE, assert_same

import gpubp as gp
from gpubp import nn, ops, optim

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

OPTIONS = gp.Options(verify=False)
BAGS = Y.reshape(2, 3)
NAMES = (
    *("AdaptiveLogSoftmaxWithLoss", "Bilinear", "CTCLoss", "CosineEmbeddingLoss"),
    *("CosineSimilarity", "Embedding", "EmbeddingBag", "GRU", "GRUCell", "GaussianNLLLoss"),
    *("HingeEmbeddingLoss", "KLDivLoss", "LSTM", "LSTMCell", "LinearCrossEntropyLoss"),
    *("MarginRankingLoss", "MultiLabelMarginLoss", "MultiMarginLoss", "MultiheadAttention"),
    *("MultiheadAttention of other widths", "PairwiseDistance", "PoissonNLLLoss", "RMSNorm"),
    *("RNN", "RNNCell", "RReLU", "RotaryEmbedding", "RotaryEmbedding of neighbours"),
    *("SoftMarginLoss", "Transformer", "TransformerDecoder", "TripletMarginLoss"),
    *("TripletMarginWithDistanceLoss",),
)
TABLES: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "Embedding of bounded rows": (lambda: nn.Embedding(4, 3, 1, 0.5), (Y,)),
    "Embedding by frequency": (lambda: nn.Embedding(4, 3, scale_grad_by_freq=True), (Y,)),
    "Embedding given": (lambda: nn.Embedding.from_pretrained(X[:4], freeze=False), (Y,)),
    "EmbeddingBag of sums": (
        lambda: nn.EmbeddingBag(4, 3, mode="sum"),
        (BAGS, None, X[:2, :3].copy()),
    ),
    "EmbeddingBag of extremes": (lambda: nn.EmbeddingBag(4, 3, mode="max", padding_idx=1), (BAGS,)),
    "EmbeddingBag of offsets": (
        lambda: nn.EmbeddingBag(4, 3, include_last_offset=True),
        (Y, np.array([0, 2, 2, 6])),
    ),
}
CASES = {**{name: MODULES[name] for name in NAMES}, **TABLES}


def near(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Equal in shape and dtype, and in value within the tolerance of models."""
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if str(b.dtype) not in ORACLE or not np.isfinite(b).all():
            assert_same(a, b)
            continue
        most = np.abs(b).max(initial=0.0)
        np.testing.assert_allclose(a, b, 0, ORACLE[str(b.dtype)] * most, strict=True)


def _floats(out: Any) -> list[Any]:
    return [leaf for leaf in gp.core.tree.flatten(out)[0] if str(leaf.dtype).startswith("float")]


def _trained(name: str, backend: Any) -> list[Any]:
    """Two losses, and weights after each."""
    make, inputs = CASES[name]
    gp.manual_seed(3)
    model = make()
    known = [x for x in inputs if x is not None]
    given = [x if len(x) == len(known[0]) else gp.whole(x) for x in known]
    absent = [i for i, x in enumerate(inputs) if x is None]
    shift = nn.Parameter(np.zeros((), np.float32))

    def loss(*arrays: Any) -> Any:
        args = list(arrays)
        first = args[0]
        if str(first.dtype).startswith("float"):
            args[0] = first + shift * ops.cos(first)
        for i in absent:
            args.insert(i, None)
        total: Any = ops.sum(ops.square(shift - 1.0))
        for out in _floats(model(*args)):
            total = total + ops.mean(ops.square(out) + ops.sin(out))
        return total

    parameters = [shift, *[p for p in model.parameters() if p.requires_grad]]
    step = gp.compile_step(
        loss, optim.SGD(parameters, lr=0.1), backend=backend, options=OPTIONS, seed=1
    )
    found = []
    for _ in range(2):
        found += [
            step(*given),
            shift.value.copy(),
            *[v.copy() for v in model.state_dict().values()],
        ]
    return found


@pytest.mark.parametrize("name", CASES)
def test_modules_train_as_on_numpy(name: str) -> None:
    """By all their parameters, and by a number that moves their first input."""
    near(_trained(name, shim_backend("random")), _trained(name, "numpy"))


@pytest.mark.parametrize("name", [*PLACE_CALLS, *COUNT_CALLS])
def test_functions_of_places_and_their_gradients(name: str) -> None:
    call = {**PLACE_CALLS, **COUNT_CALLS}[name]
    operands = place_operands()
    floats = [k for k, v in operands.items() if v.dtype.kind == "f"]

    def both(*values: Any) -> Any:
        def run(*values: Any) -> Any:
            return call({**operands, **dict(zip(floats, values, strict=True))})

        out = run(*values)
        if name in COUNT_CALLS:
            return [out]
        loss = lambda *v: ops.sum(ops.sin(run(*v)))  # noqa: E731
        return [out, *gp.grad(loss, argnums=tuple(range(len(floats))))(*values)]

    args = [operands[k] for k in floats]
    gp.manual_seed(0)
    found = gp.compile(both, backend=shim_backend("random"), options=OPTIONS)(*args)
    gp.manual_seed(0)
    near(found, gp.compile(both, backend="numpy")(*args))


EXPRESSIONS = {
    "ij,jk,kl->il": [(3, 4), (4, 2), (2, 5)],
    "bij,bjk->bik": [(2, 3, 4), (2, 4, 5)],
    "...ii->...i": [(2, 3, 3)],
    "abc,cd,b->da": [(2, 3, 4), (4, 5), (3,)],
    "i,j,k->": [(2,), (3,), (4,)],
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_einsum_and_its_gradients(expression: str) -> None:
    rng = np.random.default_rng(0)
    args = [rng.normal(size=s).astype("f") for s in EXPRESSIONS[expression]]

    def both(*x: Any) -> Any:
        run = partial(ops.einsum, expression)
        slopes = gp.grad(lambda *x: ops.sum(ops.sin(run(*x))), argnums=tuple(range(len(x))))(*x)
        return [run(*x), *slopes]

    found = gp.compile(both, backend=shim_backend("random"), options=OPTIONS)(*args)
    near(found, gp.compile(both, backend="numpy")(*args))


def linear_attention(q: Any, k: Any, v: Any, decay: Any = None, beta: Any = None) -> Any:
    """Keys and values written to a matrix, queries that read it; arrays are (time, heads, width).

    Yang et al., "Gated delta networks" (2024, arXiv:2412.06464), section 2.
    """

    def step(state: Any, x: dict[str, Any]) -> tuple[Any, Any]:
        if "decay" in x:
            state = state * ops.expand_dims(ops.exp(x["decay"]), -1)
        written = x["v"]
        if "beta" in x:
            known = ops.sum(state * ops.expand_dims(x["k"], -1), -2)
            written = x["beta"] * (written - known)
        state = state + ops.expand_dims(x["k"], -1) * ops.expand_dims(written, -2)
        return state, ops.sum(state * ops.expand_dims(x["q"], -1), -2)

    given = {"q": q, "k": k, "v": v, "decay": decay, "beta": beta}
    start = np.zeros((*k.shape[1:], v.shape[-1]), np.float32)
    return gp.scan(step, start, {name: x for name, x in given.items() if x is not None})[1]


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
def test_linear_attention_as_a_loop(rule: str) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(5, 2, 3)).astype("f") / 2 for _ in range(3))
    decay = -np.abs(rng.normal(size=(5, 2, 3))).astype("f") if "gated" in rule else None
    beta = rng.uniform(0.1, 0.9, (5, 2, 1)).astype("f") if "delta" in rule else None

    def both(q: Any, k: Any, v: Any) -> Any:
        def run(q: Any, k: Any, v: Any) -> Any:
            return linear_attention(q, k, v, decay, beta)

        slopes = gp.grad(lambda *x: ops.sum(ops.sin(run(*x))), argnums=(0, 1, 2))(q, k, v)
        return [run(q, k, v), *slopes]

    found = gp.compile(both, backend=shim_backend("random"), options=OPTIONS)(q, k, v)
    near(found, gp.compile(both, backend="numpy")(q, k, v))


@pytest.mark.parametrize(("name", "options"), optimizers.CASES)
def test_every_optimizer(name: str, options: dict[str, Any]) -> None:
    def trained(backend: Any) -> list[Any]:
        gp.manual_seed(2)
        table = nn.Embedding(5, 4)
        optimizer = getattr(optim, name)(table.parameters(), **options)
        step = gp.compile_step(
            lambda i: ops.mean(ops.square(table(i) - 1.0)), optimizer, backend=backend,
            options=OPTIONS,
        )  # fmt: skip
        return [*[step(Y) for _ in range(3)], table.weight.value]

    near(trained(shim_backend("random")), trained("numpy"))
