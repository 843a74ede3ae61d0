"""What people look at: curves, reports as pictures, tables and bars in notebooks, logging."""

from __future__ import annotations

import html.parser
import importlib.util
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from points import points, trainer

import gpubp as gp
from gpubp import markup, nn, optim
from gpubp.errors import BackendError, DataError, UnknownNameError
from gpubp.nn import summary
from gpubp.train import History, curves

X, Y = points()


def _history(epochs: int = 4, bottom: int = 3) -> History:
    history = History()
    for i in range(1, epochs + 1):
        held = 0.5 + 0.1 * abs(i - bottom)
        record = {"epoch": i, "loss": 1 / i, "accuracy": 1 - 0.5 / i}
        history.add({**record, "val_loss": held, "val_accuracy": 0.9 - held})
    return history


def _needs_matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_curves_have_every_number_whole_epochs_a_title_and_the_best(tmp_path: Path) -> None:
    _needs_matplotlib()
    history = _history()
    figure = history.plot(tmp_path / "curve.png")
    figure.canvas.draw()
    panels = figure.get_axes()
    assert [axes.get_ylabel() for axes in panels] == ["loss", "accuracy"]
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(lines[key].get_ydata(), history[key])
        np.testing.assert_allclose(lines[key].get_xdata(), history["epoch"])
    for axes in panels:
        ticks = [tick for tick in axes.get_xticks() if 1 <= tick <= 4]
        assert ticks and all(float(tick).is_integer() for tick in ticks)
    stars = [np.ravel(lines[f"{y} in epoch 3"].get_data()).tolist() for y in (0.5, 0.4)]
    assert stars == [[3.0, 0.5], [3.0, 0.4]]
    assert figure.get_suptitle() == "4 epochs, the best is 3: val_loss 0.5"
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    history.plot(tmp_path / "curve.svg", keys=["loss"], title="Mine")
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    with pytest.raises(UnknownNameError, match="'val_loss'"):
        history.plot(keys=["val_los"])
    with pytest.raises(DataError, match="nothing to plot"):
        History().plot()
    with pytest.raises(DataError, match=r"ends in .xyz, expected one of .png"):
        history.plot(tmp_path / "curve.xyz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curve.png", "curve.svg"]


def test_curves_of_several_runs_and_of_unfinished_epochs() -> None:
    _needs_matplotlib()
    cut = _history(2)
    cut.add({"epoch": 2.5, "loss": 0.4})
    cut.add({"epoch": float("nan"), "loss": 0.3})
    figure = curves.draw({"a": _history().records, "b": cut.records})
    assert figure.get_suptitle() == "2 runs; a star marks the best epoch of each"
    lines = {line.get_label(): line for line in figure.get_axes()[0].get_lines()}
    assert list(lines["b loss"].get_xdata()) == [1, 2, 2.5]
    assert lines["a loss"].get_color() != lines["b loss"].get_color()
    for_nothing = History()
    for_nothing.add({"epoch": 1, "loss": float("nan")})
    assert for_nothing.plot().get_suptitle() == "1 epoch"


def test_the_best_epoch() -> None:
    history = _history()
    assert history.best()["epoch"] == 3
    assert history.best("val_accuracy")["epoch"] == 3 and history.best("accuracy")["epoch"] == 4
    assert history.best("loss", "max")["epoch"] == 1
    with pytest.raises(UnknownNameError, match="val_loss"):
        history.best("val_lss")
    with pytest.raises(UnknownNameError, match="mode"):
        history.best(mode="least")
    history.records[:] = [{"epoch": 1, "loss": float("nan")}]
    with pytest.raises(DataError, match="finite in no epoch"):
        history.best()


class _Well(html.parser.HTMLParser):
    """Tags that are opened and closed in order; what they hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_tables_escape_what_they_hold() -> None:
    assert "<b>" not in markup.table(["<b>"], [["<b>", "&"]], "<b>")
    assert _Well(markup.table(["a", "b"], [["<x>", 1]])).texts.count("<x>") == 1


def test_a_history_in_a_notebook() -> None:
    text, picture, _ = _history(9, bottom=2)._repr_html_().partition("<svg")
    texts = _Well(text + ("</div>" if picture else "")).texts
    assert "2 (best)" in texts and "9" in texts and "0.5" in texts
    assert "no epochs" in History()._repr_html_()


def test_a_summary_in_a_notebook() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    texts = _Well(summary(model, (3, 4))._repr_html_()).texts
    assert "[3, 8]" in texts and any("58 trained" in text for text in texts)


@pytest.fixture(scope="module")
def step() -> Any:
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 3))
    loss_fn = nn.CrossEntropyLoss()
    made = gp.compile_step(lambda x, y: loss_fn(model(x), y), optim.Adam(model.parameters()))
    made(np.ones((64, 48), np.float32), np.arange(64) % 3)
    return made


def _profile(step: Any) -> Any:
    try:
        return step.report(profile=True)
    except BackendError as error:
        pytest.skip(str(error))


def test_a_report_is_a_text_with_numbers(step: Any) -> None:
    found = step.report()
    assert isinstance(found, str) and found.splitlines()[0].startswith("backend ")
    assert sum(row.flops for row in found.rows) == step.program.flops
    assert all(row.timing is None for row in found.rows)
    assert pickle.loads(pickle.dumps(found)).rows == found.rows
    texts = _Well(found._repr_html_()).texts
    assert "kFLOP" in texts and "us" not in texts


def test_a_report_as_a_picture(step: Any, tmp_path: Path) -> None:
    _needs_matplotlib()
    plain = step.report()
    assert len(plain.plot().get_axes()) == 2
    found = _profile(step)
    figure = found.plot(tmp_path / "report.svg")
    (axes,) = figure.get_axes()
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(widths[0], [row.timing.seconds * 1e6 for row in found.rows])
    np.testing.assert_allclose(widths[1], [row.timing.bound * 1e6 for row in found.rows])
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(names) == len(found.rows) and all(name.rstrip()[-1].isdigit() for name in names)
    assert {"us", "bound", "of peak"} <= set(_Well(found._repr_html_()).texts)


def test_logging_tells_of_epochs_and_programs(caplog: Any, tmp_path: Path) -> None:
    with caplog.at_level(logging.DEBUG, logger="gpubp"):
        trainer().fit(X, Y, epochs=2, verbose=False, checkpoint=tmp_path / "run.ckpt")
    lines = [(record.name, record.getMessage()) for record in caplog.records]
    told = [text for name, text in lines if name == "gpubp.train.fit"]
    assert told[0] == "training from epoch 1 to 2"
    assert told[1].startswith("epoch 1 of 2: loss ")
    assert told[-1].endswith("steps: done")
    assert any(n == "gpubp.runtime.program_cache" and "instructions" in text for n, text in lines)
    assert any(n == "gpubp.train.saving" and "run.ckpt holds" in text for n, text in lines)


def test_logging_is_silent_unless_asked() -> None:
    code = (
        "import logging, gpubp; logging.getLogger('gpubp.train').error('told');"
        "print(logging.getLogger('gpubp').level, len(logging.getLogger().handlers))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("0 0", "")


_CELL = """
import sys
from points import points, trainer
X, Y = points()
made = trainer()
made.fit(X, Y, epochs=2)
"""


@pytest.mark.full
def test_a_notebook_shows_lines_bars_and_tables() -> None:
    """A kernel of its own: progress is no error there, and a history shows as a table."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.v4.new_notebook()
    path = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})"
    cells = [path, _CELL, "made.step.report()"]
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in cells]
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[1].outputs
    printed = "".join(o["text"] for o in outputs if o.get("name") == "stdout")
    assert printed.startswith("epoch 1/2  loss ") and "epoch 2/2" in printed
    assert [o for o in outputs if o.get("name") == "stderr"] == []
    (shown,) = [o for o in outputs if o["output_type"] == "execute_result"]
    assert "<table>" in shown["data"]["text/html"]
    (shown,) = notebook.cells[2].outputs
    assert "kFLOP" in shown["data"]["text/html"] and "backend" in shown["data"]["text/plain"]
    bars = [o for o in outputs if "widget" in str(o.get("data", ""))]
    assert bool(bars) == (importlib.util.find_spec("ipywidgets") is not None)
