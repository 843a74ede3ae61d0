"""`gpubp export`: raw columns in ONNX Runtime give what `gpubp predict` says of the same file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

INSTALL = "needs onnx and onnxruntime: pip install 'gpubp[oracle]'"
onnx = pytest.importorskip("onnx", reason=INSTALL)
pytest.importorskip("onnxruntime", reason=INSTALL)
import onnx_runtime  # noqa: E402 - beside this file

from gpubp.cli import main  # noqa: E402

pytestmark = pytest.mark.oracle
ROWS = 150
FAST = ("--backend", "numpy", "--hidden", "5", "--epochs", "3", "--quiet")


@pytest.fixture
def table() -> dict[str, list[Any]]:
    """Numbers with gaps and far from 0, names with gaps, codes, dates with gaps, constants."""
    rng = np.random.default_rng(1)
    height = (1700 + 100 * rng.normal(size=ROWS)).round(2).tolist()
    colour = rng.choice(["red", "blue", "dark green", "naïve"], ROWS).tolist()
    day = [f"20{20 + i % 5}-{1 + i * 7 % 12:02d}-{1 + i * 11 % 28:02d}" for i in range(ROWS)]
    for i in range(0, ROWS, 7):
        height[i] = ""
        colour[i + 1 if i + 1 < ROWS else i] = "NA"
        day[i + 2 if i + 2 < ROWS else i] = ""
    code = rng.choice(["1", "2", "30"], ROWS).tolist()
    weight = rng.normal(size=ROWS).round(4)
    price = (3.0 * weight + 20 + np.arange(ROWS) % 3).round(3).tolist()
    label = np.where(weight > 0, "yes", "no").tolist()
    found = {"height": height, "colour": colour, "day": day, "code": code}
    found["weight"] = weight.tolist()
    return {**found, "price": price, "label": label}


def _write(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def _predictions(capsys: Any, *arguments: Any) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["predict", *map(str, arguments), "--probabilities"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def _exported(path: Path) -> Any:
    assert main(["export", str(path)]) == 0
    made = onnx.load(path.with_suffix(".onnx"))
    onnx.checker.check_model(made, full_check=True)
    return made


def _days(cell: str) -> float:
    return np.nan if cell == "" else float(np.datetime64(cell).astype(np.int64))


def _columns(model: Any, table: dict[str, list[Any]]) -> list[Any]:
    """The table as the graph's inputs take it."""
    found = []
    for value in model.graph.input:
        cells = table[value.name]
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            found.append(np.array([str(c) for c in cells], object))
        elif value.name == "day":
            found.append(np.array([_days(c) for c in cells]))
        else:
            found.append(np.array([np.nan if c == "" else float(c) for c in cells]))
    return found


def _train(path: Path, target: str, *more: str) -> Path:
    model = path.with_suffix(".safetensors")
    drop = "price" if target == "label" else "label"
    arguments = ["train", str(path), "--target", target, "--drop", drop, "--save", str(model)]
    assert main([*arguments, *FAST, *more]) == 0
    return model


def test_labels_and_probabilities_from_raw_columns(capsys, tmp_path, table) -> None:
    path = _write(tmp_path / "d.csv", table)
    model = _train(path, "label", "--categorical", "code")
    expected = _predictions(capsys, model, path)
    made = _exported(model)
    labels, probabilities = onnx_runtime.run(made, _columns(made, table))
    assert labels.tolist() == [row["prediction"] for row in expected]
    numbers = [[float(row[f"probability_{c}"]) for c in ("no", "yes")] for row in expected]
    np.testing.assert_allclose(probabilities, numbers, rtol=0, atol=1e-5)
    kinds = {v.name: v.type.tensor_type.elem_type for v in made.graph.input}
    assert kinds["colour"] == kinds["code"] == onnx.TensorProto.STRING
    assert kinds["height"] == kinds["day"] == onnx.TensorProto.DOUBLE


def test_names_that_training_did_not_have_and_other_spellings(capsys, tmp_path, table) -> None:
    model = _train(_write(tmp_path / "d.csv", table), "label", "--categorical", "code")
    new = {name: cells[:6] for name, cells in table.items()}
    new["colour"] = ["black", "N/A", "null", "red", "", "NaN"]
    new["code"] = ["1.0", "2", "30.0", "7", "", "nan"]
    new["day"] = ["2024-02-29", "1969-12-31", "2100-03-01", "2000-01-01", "", "1899-12-31"]
    table = {n: c for n, c in new.items() if n not in ("price", "label")}
    expected = _predictions(capsys, model, _write(tmp_path / "new.csv", table))
    made = _exported(model)
    _, probabilities = onnx_runtime.run(made, _columns(made, table))
    numbers = [float(row["probability_yes"]) for row in expected]
    np.testing.assert_allclose(probabilities[:, 1], numbers, rtol=0, atol=1e-5)


def test_a_number_in_the_units_of_the_data(capsys, tmp_path, table) -> None:
    path = _write(tmp_path / "d.csv", table)
    model = _train(path, "price")
    capsys.readouterr()
    assert main(["predict", str(model), str(path)]) == 0
    expected = [
        float(r["prediction"]) for r in csv.DictReader(io.StringIO(capsys.readouterr().out))
    ]
    made = _exported(model)
    (found,) = onnx_runtime.run(made, _columns(made, table))
    assert found.shape == (ROWS, 1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_many_names_have_a_rest(capsys, tmp_path, table) -> None:
    rng = np.random.default_rng(2)
    towns = [f"town {i}" for i in rng.integers(0, 20, ROWS)]
    table["town"] = [*towns[:-40], *[f"hamlet {i}" for i in range(40)]]
    whole = {name: cells * 6 for name, cells in table.items()}
    whole["town"] = [t if "town" in t else f"{t} {i}" for i, t in enumerate(whole["town"])]
    path = _write(tmp_path / "d.csv", whole)
    model = _train(path, "label")
    expected = _predictions(capsys, model, path)
    made = _exported(model)
    encoder = next(n for n in made.graph.node if "town" in n.input)
    values = {a.name: onnx.helper.get_attribute_value(a) for a in encoder.attribute}
    assert values["default_int64"] > 0
    labels, _ = onnx_runtime.run(made, _columns(made, whole))
    assert labels.tolist() == [row["prediction"] for row in expected]


@pytest.mark.parametrize("kind", ["numbers", "images"])
def test_models_of_arrays(capsys, tmp_path, kind: str) -> None:
    rng = np.random.default_rng(3)
    shape, dtype = ((90, 6), np.float64) if kind == "numbers" else ((90, 1, 8, 8), np.uint8)
    X = (100 + 20 * rng.normal(size=shape)).astype(dtype)
    y = rng.integers(0, 3, 90)
    path, model = tmp_path / "d.npz", tmp_path / "m.safetensors"
    np.savez(path, X=X, y=y)
    more = ("--model", "cnn", "--channels", "3") if kind == "images" else ()
    assert main(["train", str(path), "--save", str(model), *FAST, *more]) == 0
    expected = _predictions(capsys, model, path)
    made = _exported(model)
    given = X.astype(np.float64 if kind == "numbers" else np.float32)
    labels, probabilities = onnx_runtime.run(made, [given])
    assert labels.dtype == np.int64
    assert labels.tolist() == [int(row["prediction"]) for row in expected]
    numbers = [[float(row[f"probability_{c}"]) for c in range(3)] for row in expected]
    np.testing.assert_allclose(probabilities, numbers, rtol=0, atol=1e-5)


def test_what_cannot_be_written_is_said(capsys, tmp_path, table) -> None:
    model = _train(_write(tmp_path / "d.csv", table), "label")
    assert main(["export", str(model), "-o", str(tmp_path / "none" / "m.onnx")]) == 3
    assert main(["export", str(tmp_path / "d.csv")]) == 4
    assert not list(tmp_path.glob("**/*.onnx"))


def test_columns_may_have_the_names_of_outputs_and_weights(capsys, tmp_path, table) -> None:
    """Names of the graph's own give way."""
    renamed = {
        "label": table["height"],
        "input": table["weight"],
        "model.0.weight": table["colour"],
    }
    renamed |= {"number": table["code"], "y": table["label"]}
    path, model = _write(tmp_path / "d.csv", renamed), tmp_path / "m.safetensors"
    arguments = ["train", str(path), "--target", "y", "--categorical", "number"]
    assert main([*arguments, "--save", str(model), *FAST]) == 0
    expected = _predictions(capsys, model, path)
    made = _exported(model)
    labels, _ = onnx_runtime.run(made, _columns(made, renamed))
    assert labels.tolist() == [row["prediction"] for row in expected]
