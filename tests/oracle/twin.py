"""One small MLP in gpubp and in PyTorch, with the same weights and data, trained side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optimizers import taken
from tolerances import ORACLE

from gpubp import nn, ops, optim
from gpubp.runtime.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
torch.set_num_threads(1)

STEPS, BATCH, FEATURES, CLASSES, SAMPLES = 50, 8, 6, 4, 40


class Twin:
    """The two models, and the losses of both."""

    def __init__(self, dtype: str, backend: str) -> None:
        ops.manual_seed(3)
        self.dtype, self.backend = dtype, backend
        self.model = nn.Sequential(
            nn.Linear(FEATURES, 5, dtype=dtype), nn.Tanh(), nn.Linear(5, CLASSES, dtype=dtype)
        )
        t = torch.nn
        self.other = t.Sequential(t.Linear(FEATURES, 5), t.Tanh(), t.Linear(5, CLASSES))
        self.other.to(getattr(torch, dtype)).load_state_dict(
            {k: torch.from_numpy(v) for k, v in self.model.state_dict().items()}
        )
        rng = np.random.default_rng(4)
        self.X = rng.normal(size=(SAMPLES, FEATURES)).astype(dtype)
        self.y = rng.integers(0, CLASSES, SAMPLES)
        self.order = rng.integers(0, SAMPLES, 400 * BATCH)
        self.losses: list[Any] = []
        self.expected: list[float] = []
        self.done = 0

    def optimizers(self, name: str, options: dict[str, Any]) -> tuple[optim.Optimizer, Any]:
        mine = getattr(optim, name)(taken(name, self.model.parameters()), **options)
        return mine, getattr(torch.optim, name)(taken(name, self.other.parameters()), **options)

    def stepper(self, optimizer: optim.Optimizer, **settings: Any) -> Any:
        loss_fn = nn.CrossEntropyLoss()
        return compile_step(
            lambda x, y: loss_fn(self.model(x), y), optimizer, backend=self.backend, **settings
        )

    def train(
        self,
        step: Any,
        theirs: Any,
        steps: int,
        after: Callable[[], None] = lambda: None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Take `steps` further steps in both libraries: one run here, a loop there.

        `before` and `after` stand around torch's optimizer.step().
        """
        order = self.order[self.done * BATCH : (self.done + steps) * BATCH]
        self.done += steps
        self.losses += list(step.run(self.X, self.y, batch_size=BATCH, order=order))
        for rows in order.reshape(steps, BATCH):
            theirs.zero_grad()
            self.expected.append(self.backward(rows))
            if isinstance(theirs, torch.optim.SparseAdam):  # which refuses others
                for param in self.other.parameters():
                    param.grad = param.grad.to_sparse()
            before()
            theirs.step()
            after()

    def backward(self, rows: np.ndarray) -> float:
        """Loss and gradients of a batch in PyTorch."""
        outputs = self.other(torch.from_numpy(self.X[rows]))
        loss = torch.nn.CrossEntropyLoss()(outputs, torch.from_numpy(self.y[rows]))
        loss.backward()
        found: float = loss.item()
        return found

    def check(self) -> None:
        """Losses of all steps and the weights at the end."""
        np.testing.assert_allclose(self.losses, self.expected, rtol=ORACLE[self.dtype])
        self.check_weights(self.other.state_dict())

    def check_weights(self, theirs: dict[str, Any]) -> None:
        """The weights are those of a torch state dict."""
        tolerance = ORACLE[self.dtype]
        for name, value in self.model.state_dict().items():
            reference = theirs[name].numpy()
            assert np.abs(value - reference).max() <= tolerance * np.abs(reference).max(), name


def to_numpy(state: dict[str, Any]) -> dict[str, Any]:
    """A torch optimiser's state dict with arrays."""
    return _converted(state, lambda v: v.numpy() if isinstance(v, torch.Tensor) else v)


def to_torch(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict of gpubp with tensors."""
    return _converted(state, lambda v: torch.as_tensor(v) if isinstance(v, np.ndarray) else v)


def _converted(state: dict[str, Any], leaf: Callable[[Any], Any]) -> dict[str, Any]:
    moments = {i: {k: leaf(v) for k, v in s.items()} for i, s in state["state"].items()}
    return {"state": moments, "param_groups": state["param_groups"]}
