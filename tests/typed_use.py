"""What type checkers know of the public names, as a user's program sees it: mypy reads this file.

Nothing here is run.
"""

from __future__ import annotations

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits, read_csv
from gpubp.data.table import Table
from gpubp.runtime.compiled_step import Step
from gpubp.runtime.function import CompiledFunction
from gpubp.runtime.report import Report
from gpubp.train import EarlyStopping, History, Trainer, load_model


def of_readme() -> None:
    X, X_test, y, y_test = load_digits(split=True)
    assert_type(X, NDArray[Any])
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    assert_type(model[0], nn.Module)
    assert_type(model.state_dict(), dict[str, NDArray[Any]])
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    step = gp.compile_step(lambda x, t: loss_fn(model(x), t), optimizer)
    assert_type(step, Step)
    assert_type(step.report(), Report)
    losses: NDArray[np.float32] = step.run(X, y, batch_size=32, epochs=5)
    print(step(X[:32], y[:32]), losses.mean())
    trainer = gp.Trainer(model, loss_fn, optimizer)
    assert_type(trainer, Trainer)
    stopping = EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    history = trainer.fit(X, y, validation_data=(X_test, y_test), callbacks=[stopping])
    assert_type(history, History)
    assert_type(history["loss"], list[float])
    assert_type(trainer.evaluate(X_test, y_test), dict[str, float])
    assert_type(trainer.stop_reason, str | None)


def of_tables_and_files() -> None:
    table = read_csv("houses.csv")
    assert_type(table, Table)
    assert_type(table.numbers("price"), NDArray[np.float64])
    found = load_model("m.safetensors")
    assert_type(found.model, nn.Module)
    assert_type(found.extra, dict[str, Any])


def of_functions() -> None:
    assert_type(gp.compile(lambda v: v), CompiledFunction)
    weight = nn.Parameter(np.zeros(3))
    optimizer = optim.SGD([weight], lr=0.1, momentum=0.9)
    schedule: optim.lr_scheduler.LRScheduler = optim.lr_scheduler.StepLR(optimizer, step_size=3)
    schedule.step()


class Scaled(nn.Module):
    """A module of one's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.gain = nn.Parameter(np.ones(width, np.float32))

    def forward(self, x: Any) -> Any:
        return self.gain * self.inner(x)


assert_type(Scaled(3).inner, nn.Linear)
assert_type(Scaled(3).gain, nn.Parameter)
