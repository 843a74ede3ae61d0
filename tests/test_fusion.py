"""What is fused: the plan of an MLP's training step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classifier import BATCH, OPTIMIZERS, bank_labels, classifier_step, digits, mlp

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.compiler.parts import Part
from gpubp.compiler.pipeline import compile_graph
from gpubp.compiler.program import Program
from gpubp.compiler.sizes import MOST_NUMBERS
from gpubp.compiler.trace import trace

# The last op that the update rule adds to the weight gradient.
RULES = {"sgd": "sgd_update", "adam": "adam_update"}


def names(program: Program) -> list[list[str]]:
    return [[c.spec.name for c in part.body] for part in program.parts]


def matmuls(program: Program) -> list[Part]:
    return [p for p in program.parts if p.kernel == "matmul"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_plan_of_a_classifier_step(name: str) -> None:
    step = classifier_step(OPTIMIZERS[name])
    step(*digits())
    program = step.program
    assert not [b.name for b in program.buffers if b.name.startswith("grads")]
    assert program.syncs <= 2
    assert len(program.instructions) <= 12
    found = names(program)
    assert found.count(["matmul", "add", "relu"]) == 2
    assert found.count(["matmul", "add"]) == 1
    assert found.count(["softmax_cross_entropy", "softmax_cross_entropy_grad"]) == 1


@pytest.mark.parametrize("width", [10, 32, 64])
def test_the_plan_does_not_depend_on_sizes_that_happen_to_be_equal(width: int) -> None:
    """Batch, inputs, units and classes alike: no axis may be taken for another one."""
    model = nn.Sequential(
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
    )
    program = classifier_step(OPTIMIZERS["adam"], model).prepare(
        np.zeros((width, width), np.float32), np.zeros(width, np.int64)
    )
    assert program.syncs == 2
    assert len(program.instructions) == 12
    for instruction in program.instructions:
        if [p.kernel for p in instruction.parts] == ["matmul", "reduce"]:
            assert "adam_update" in instruction.parts[0].name
            assert "adam_update" in instruction.parts[1].name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_never_leave_their_part(name: str) -> None:
    step = classifier_step(OPTIMIZERS[name])
    step(*digits())
    rule = RULES.get(name.split("_")[0], "sgd_update")
    program = step.program
    updates = [p for p in matmuls(program) if p.body[-1].spec.name == rule]
    assert [p.body[-1].shape for p in updates] == [(10, 50), (50, 100), (100, 64)]
    for part in updates:
        assert "params" in bank_labels(part, program)
        assert all(program.buffers[o.buffer].kind == "bank" for _, o in part.outputs)
    sharing = [sorted(p.kernel for p in i.parts) for i in program.instructions if len(i.parts) > 1]
    assert sharing.count(["matmul", "reduce"]) == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_activations_gradient_is_an_epilogue_and_data_has_no_gradient(name: str) -> None:
    step = classifier_step(OPTIMIZERS[name])
    step(*digits())
    backward = [p for p in matmuls(step.program) if "relu_grad" in [c.spec.name for c in p.body]]
    assert [p.body[0].shape for p in backward] == [(BATCH, 50), (BATCH, 100)]
    assert not [p for p in matmuls(step.program) if p.body[0].shape == (BATCH, 64)]
    assert len(matmuls(step.program)) == 3 + 2 + 3


@pytest.mark.parametrize(
    ("activation", "forward", "backward"),
    [
        (nn.Sigmoid, "sigmoid", "sigmoid_grad"),
        (nn.Tanh, "tanh", "tanh_grad"),
        (nn.GELU, "gelu", ""),
    ],
)
def test_other_activations_are_fused_alike(activation: Any, forward: str, backward: str) -> None:
    step = classifier_step(OPTIMIZERS["sgd"], mlp(activation))
    step(*digits())
    program = step.program
    assert program.syncs <= 2
    assert len(program.instructions) <= 12
    assert sum(n[:2] == ["matmul", "add"] and forward in n for n in names(program)) == 2
    assert len(matmuls(program)) == 8
    with_gradient = [p for p in matmuls(program) if p.body[0].shape in ((BATCH, 50), (BATCH, 100))]
    later = [p for p in with_gradient if forward not in [c.spec.name for c in p.body]]
    assert len(later) == 2
    assert all(len(p.body) > 1 for p in later)
    if backward:
        assert all(p.body[-1].spec.name == backward for p in later)


def test_mean_squared_error_is_fused_alike() -> None:
    model, loss_fn = mlp(out=2), nn.MSELoss()
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y), optim.Adam(model.parameters()), backend="numba"
    )
    x, _ = digits()
    step(x, x[:, :2])
    assert step.program.syncs <= 2
    assert len(step.program.instructions) <= 12
    assert len(matmuls(step.program)) == 8


def test_column_sums_and_products_that_need_each_other() -> None:
    """Each sum may join the product of its rows, but not both: each needs the other product."""

    def f(x1: Any, x2: Any, a: Any) -> Any:
        x1, x2 = ops.softmax(x1), ops.softmax(x2)
        y1, y2 = ops.transpose(x1) @ a, ops.transpose(x2) @ a
        return y1, y2, ops.sum(x1, 0) + y2[:, 0], ops.sum(x2, 0) + y1[:, 0]

    data = np.random.default_rng(0).normal(size=(3, 4, 4))
    for found, wanted in zip(gp.compile(f, backend="numba")(*data), f(*data), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_report_states_what_fusion_saves() -> None:
    step = classifier_step(OPTIMIZERS["adam"])
    with pytest.raises(gp.errors.GpubpError, match="nothing is compiled"):
        step.report()
    step(*digits())
    program, text = step.program, step.report()
    assert program.bytes_moved < program.unfused_bytes
    assert f"bytes moved {program.bytes_moved / 1e3:.1f} kB fused" in text
    assert f"{program.unfused_bytes / 1e3:.1f} kB with one kernel per op" in text
    assert "gradient buffers: none" in text
    assert "matmul+add+relu" in text


def _sum_of_many(*xs: Any) -> Any:
    total = ops.sum(xs[0])
    for x in xs[1:]:
        total = total + ops.sum(ops.square(x))
    chained = xs[0]
    for x in xs[1:]:
        chained = chained * 0.5 + ops.sin(x)
    return ops.sqrt(total), chained


@pytest.mark.parametrize("strided", [False, True])
def test_a_part_reads_no_more_than_a_kernel_can_be_told(strided: bool) -> None:
    """Hundreds of arrays are added in several parts; the numbers are those of one."""
    xs = [np.random.default_rng(i).normal(size=(3, 4, 2)) for i in range(300)]

    def fn(*xs: Any) -> Any:
        return _sum_of_many(*[ops.transpose(x)[::-1] if strided else x for x in xs])

    program = compile_graph(trace(fn, xs)[0], options=gp.Options(verify=False))
    for part in program.parts:
        strides = sum(0 if o.contiguous else len(o.shape) for o in part.inputs)
        assert 3 * (len(part.inputs) + len(part.outputs)) + strides <= MOST_NUMBERS
    assert len(program.parts) < 350 + 300 * 2 * 6 / MOST_NUMBERS * 4
    found = gp.compile(fn, backend="numba", options=gp.Options(verify=False))(*xs)
    for a, b in zip(found, fn(*xs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_slots_that_take_one_number_everywhere_are_written_together(backend: str) -> None:
    """The rule of all is a copy of one number, which has no shape of its own to follow."""

    class Cleared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", np.ones((2, 3), np.float32))
            self.register_buffer("b", np.ones((2, 3), np.float32))

        def forward(self, x: Any) -> Any:
            ops.assign(self.a, ops.broadcast_to(ops.sum(x), (2, 3)))
            ops.assign(self.b, ops.broadcast_to(ops.sum(x), (2, 3)))
            return x

    model = Cleared()
    gp.compile(model, backend=backend, options=gp.Options(verify=True))(np.ones(4, np.float32))
    for buffer in (model.a, model.b):
        np.testing.assert_array_equal(buffer.value, np.full((2, 3), 4.0, np.float32))
