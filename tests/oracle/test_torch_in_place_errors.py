"""What gpubp.torch refuses: by the line of the user's code, before anything has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from torch import nn  # noqa: E402

import gpubp.torch  # noqa: E402
from gpubp.errors import (  # noqa: E402
    ArgumentError,
    DataError,
    DTypeError,
    GpubpError,
    TraceError,
)

torch.set_num_threads(1)

pytestmark = pytest.mark.oracle


class Double(torch.autograd.Function):  # type: ignore[misc]
    """Whose gradient is not that of its forward."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 3 * g


def _branches(x: Any) -> Any:
    return x if x.sum() > 0 else -x  # the branch


def _mask(x: Any) -> Any:
    return x[x > 0].sum()  # the mask


def _item(x: Any) -> Any:
    return x * x.max().item()  # the number


def _own_backward(x: Any) -> Any:
    return Double.apply(x)  # the function


def _inner_gradient(x: Any) -> Any:
    return torch.autograd.grad(x.sum(), x, create_graph=True)[0]  # the gradient


def _hook(x: Any) -> Any:
    x.register_hook(print)  # the hook
    return x


def _half(x: Any) -> Any:
    return x.half().float()  # the half


def _transform(x: Any) -> Any:
    return torch.fft.fft(x).real  # the transform


def _numpy(x: Any) -> Any:
    return torch.from_numpy(x.detach().numpy() * 2)  # the array


def _packed(x: Any) -> Any:
    return nn.utils.rnn.pack_padded_sequence(x, torch.tensor([1, 1])).data  # the packed


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "branch": (_branches, "depends on the numbers"),
    "mask": (_mask, "torch.where"),
    "number": (_item, "item has no counterpart"),
    "packed": (_packed, "a packed sequence"),
    "function": (_own_backward, "autograd function"),
    "gradient": (_inner_gradient, "gradient taken inside"),
    "hook": (_hook, "hook"),
    "half": (_half, "float16"),
    "transform": (_transform, "no counterpart|complex"),
    "array": (_numpy, "cannot follow"),
}


class Counting(nn.Module):
    """Which counts its calls in Python."""

    def __init__(self, kept: bool) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), 0
        self.register_buffer("total", torch.zeros(2))
        self._kept = kept

    def forward(self, x: Any) -> Any:
        out = self.layer(x)
        if self._kept:
            self.total = self.total + out.detach().sum(0)
        else:
            self.calls += 1
        return out


class Wrapped(nn.Module):
    """A linear layer, and then a function."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        super().__init__()
        self.layer, self._fn = nn.Linear(3, 2), fn

    def forward(self, x: Any) -> Any:
        return self._fn(self.layer(x))


def step_of(model: Any, loss: Any = None) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return gpubp.torch.compile_step(model, loss or (lambda out, y: out.sum()), optimizer)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_translated_is_named_by_its_line(name: str) -> None:
    fn, what = REFUSED[name]
    model = Wrapped(fn)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(TraceError, match=what) as found:
        step_of(model)(torch.randn(4, 3), torch.zeros(4))
    assert f"# the {name}" in str(found.value) and "test_torch_in_place_errors.py" in str(
        found.value
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_refusal_in_the_loss_is_named_too() -> None:
    def loss(out: Any, y: Any) -> Any:
        return _item(out).sum()

    with pytest.raises(TraceError, match="# the number"):
        step_of(nn.Linear(3, 2), loss)(torch.randn(4, 3), torch.zeros(4))


@pytest.mark.parametrize(
    "hooked",
    [
        lambda m: m.register_forward_hook(print),
        lambda m: m.register_forward_pre_hook(print),
        lambda m: m.register_full_backward_hook(print),
        lambda m: m.weight.register_hook(print),
        lambda m: m.weight.register_post_accumulate_grad_hook(print),
    ],
    ids=["forward", "forward pre", "backward", "gradient", "accumulated"],
)
def test_hooks_are_refused(hooked: Callable[[Any], Any]) -> None:
    model = nn.Linear(3, 2)
    hooked(model)
    with pytest.raises(TraceError, match="hook"):
        step_of(model)


def test_a_hook_of_later_is_refused_at_the_next_step() -> None:
    model = nn.Linear(3, 2)
    step = step_of(model)
    batch = torch.randn(4, 3), torch.zeros(4)
    step(*batch)
    model.register_forward_hook(print)
    with pytest.raises(TraceError, match="hook"):
        step(*batch)


def test_attributes_that_a_forward_sets_are_refused() -> None:
    with pytest.raises(TraceError, match=r"self.calls \+= 1: this sets Counting.calls"):
        step_of(Counting(kept=False))(torch.randn(4, 3), torch.zeros(4))


def test_buffers_that_a_forward_sets_are_kept() -> None:
    model = Counting(kept=True)
    x = torch.randn(4, 3)
    expected = model.layer(x).detach().sum(0)
    step_of(model)(x, torch.zeros(4))
    torch.testing.assert_close(model.total, expected)


def test_a_model_that_changes_at_every_step_is_told_of() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.0))
    step = step_of(model)
    with pytest.warns(UserWarning, match="p changes from step to step"):
        for k in range(12):
            model[1].p = k / 100
            step(torch.randn(4, 3), torch.zeros(4))


def _sgd(params: Any) -> Any:
    return torch.optim.SGD(params, lr=0.1)


BAD_CALLS: dict[str, tuple[type[GpubpError], str, Callable[[], Any]]] = {
    "no module": (ArgumentError, "expected a torch.nn.Module", lambda: gpubp.torch.compile_step(
        [nn.Linear(2, 2), 3], None, _sgd(nn.Linear(2, 2).parameters()))),
    "other parameters": (ArgumentError, "not the model's", lambda: gpubp.torch.compile_step(
        nn.Linear(2, 2), nn.MSELoss(), _sgd(nn.Linear(2, 2).parameters()))),
    "half precision": (DTypeError, "bfloat16", lambda: step_of(nn.Linear(2, 2).bfloat16())),
    "no optimizer": (ArgumentError, "torch.optim", lambda: gpubp.torch.compile_step(
        nn.Linear(2, 2), nn.MSELoss(), None)),
    "LBFGS": (ArgumentError, r"errors.py, line \d+.*LBFGS finds", lambda: gpubp.torch.compile_step(
        (m := nn.Linear(2, 2)), nn.MSELoss(), torch.optim.LBFGS(m.parameters()))),
    "scripted": (
        TraceError,
        "^0 is compiled by torch.jit.script, .* Use the module that it was made of",
        lambda: step_of(nn.Sequential(torch.jit.script(nn.Linear(3, 2)))),
    ),
    "lazy": (DataError, "no shape yet", lambda: step_of(nn.LazyLinear(2))),
    "no loss": (ArgumentError, "loss_fn", lambda: gpubp.torch.compile_step(
        (m := nn.Linear(2, 2)), 3, _sgd(m.parameters()))),
    "no target": (ArgumentError, "target", lambda: step_of(nn.Linear(3, 2))(torch.randn(4, 3))),
    "plateau": (ArgumentError, "metric", lambda: gpubp.torch.compile_step(
        (m := nn.Linear(2, 2)), nn.MSELoss(), (o := _sgd(m.parameters())),
        scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau(o))),
    "a module of another library": (ArgumentError, "expected a torch.nn.Module", lambda: (
        gpubp.torch.from_module(3))),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls_say_what_was_expected(name: str) -> None:
    kind, what, call = BAD_CALLS[name]
    with pytest.raises(kind, match=what):
        call()


def test_what_is_supported_is_listed() -> None:
    listed = gpubp.torch.supported()
    assert {"linear", "conv2d", "lstm", "cross_entropy_loss"} <= set(listed["operations"])
    assert {"SGD", "AdamW"} <= set(listed["optimizers"])
    packets = torch.ops.aten
    unknown = [name for name in listed["operations"] if not hasattr(packets, name)]
    assert not unknown
