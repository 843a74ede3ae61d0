"""`gpubp train` and `predict` on files as people have them: read right and said so, or refused."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

from gpubp.cli import main
from gpubp.train import load_model

FAST = ("--backend", "numpy", "--epochs", "2", "--hidden", "4")
ROWS = 60


def _run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def _train(capsys, path, *arguments):
    return _run(capsys, "train", path, *FAST, *arguments)


def _write(path, header, rows, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


@pytest.fixture
def numbers():
    return np.random.default_rng(0).normal(50, 10, ROWS).round(2)


def _kind(x):
    return "Yes" if x > 50 else "No"


def _german(x):
    return f"{x:,.2f}".translate(str.maketrans(".,", ",."))


def test_three_lines_say_how_a_file_was_read(capsys, tmp_path, numbers):
    rows = [[x, "ab"[i % 2], f"n{i}", _kind(x)] for i, x in enumerate(numbers)]
    path = _write(tmp_path / "d.csv", ["size", "colour", "id", "y"], rows)
    code, _, err = _train(capsys, path, "--target", "y", "--drop", "id")
    assert code == 0
    yes = int((numbers > 50).sum())
    assert err.splitlines()[:3] == [
        f"{path}: 48 rows to train on, 12 held out; columns separated by commas",
        f"classification of 'y', 2 classes (No {ROWS - yes}, Yes {yes})",
        "from 2 columns, 3 inputs: size (number), colour (2 names); left out: id",
    ]
    assert err.splitlines()[3].startswith("epoch 1/2")
    code, _, err = _train(capsys, path, "--target", "y", "--drop", "id", "--quiet")
    assert code == 0 and not [line for line in err.splitlines() if "no better than" not in line]


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_decimal_commas_are_read_as_points_are(capsys, tmp_path, numbers, delimiter, word):
    """The same numbers in both manners: the same model, and it is said."""
    models = []
    for name, write, sign in (("a", str, delimiter), ("b", _german, delimiter)):
        rows = [[write(x), write(100 * x), _kind(x)] for x in numbers]
        path = _write(tmp_path / f"{name}.csv", ["x", "price", "y"], rows, sign)
        model = tmp_path / f"{name}.safetensors"
        code, out, err = _train(capsys, path, "--target", "price", "--save", model)
        assert code == 0
        models.append((out, load_model(model).model.state_dict()))
    assert f"columns separated by {word}, decimal commas" in err
    assert f"regression of 'price', {100 * numbers.min():.6g} to" in err
    assert f"read '{_german(numbers[0])}' (row 2, column 'x') as {numbers[0]}" in err
    assert models[0][0] == models[1][0]
    for key, value in models[0][1].items():
        np.testing.assert_allclose(models[1][1][key], value, rtol=1e-5, atol=1e-6)
    code, _, err = _run(capsys, "predict", model, tmp_path / "b.csv", "--backend", "numpy")
    assert code == 0
    assert f"as {numbers[0]}" in err and "r2 " in err


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda x: f"${x:,.2f}", "in '$'"),
        (lambda x: f"{x:.2f} kg", "in 'kg'"),
        (lambda x: f"{x:.2f}%", "in '%'"),
        (lambda x: f"({x:.2f})", ""),
        (lambda x: f"{x:,.2f}", ""),
    ],
)
def test_amounts_are_numbers_as_targets_and_as_inputs(capsys, tmp_path, numbers, write, said):
    rows = [[x, write(1000 + 100 * x), _kind(x)] for x in numbers]
    path = _write(tmp_path / "d.csv", ["x", "amount", "y"], rows)
    code, out, err = _train(capsys, path, "--target", "amount")
    assert code == 0
    assert "regression of 'amount'" in err.splitlines()[1] and said in err.splitlines()[1]
    assert re.match(r"held-out r2 ", out)
    code, _, err = _train(capsys, path, "--target", "y")
    assert code == 0
    number = f"number {said}" if said else "number"
    assert f"from 2 columns, 2 inputs: x (number), amount ({number})" in err


def test_numbers_that_may_mean_two_things_are_said_or_refused(capsys, tmp_path, numbers):
    rows = [[f"{1000 + i:,}", _kind(x)] for i, x in enumerate(numbers)]
    path = _write(tmp_path / "a.csv", ["x", "y"], rows)
    code, _, err = _train(capsys, path, "--target", "y", "--quiet")
    assert code == 0
    place = f"warning: {path}, row 2, column 'x': '1,000' is read as 1000; if 1 is meant, add"
    assert f"{place} --decimal comma." in err
    path = _write(tmp_path / "a.tsv", ["x", "y"], rows, "\t")
    code, out, err = _train(capsys, path, "--target", "y")
    assert (code, out) == (3, "")
    assert f"{path}, row 2, column 'x': '1,000' can mean 1000 or 1." in err
    for decimal in ("point", "comma"):
        assert _train(capsys, path, "--target", "y", "--decimal", decimal)[0] == 0


def test_a_cell_unlike_the_others_is_an_error_at_its_place(capsys, tmp_path, numbers):
    for cell, why in (("2,5", "decimal point"), ("5 kg", "the unit 'kg'"), ("inf", "as the other")):
        rows = [[x, _kind(x)] for x in numbers]
        rows[6][0] = cell
        path = _write(tmp_path / "d.csv", ["x", "y"], rows)
        code, out, err = _train(capsys, path, "--target", "y")
        assert (code, out) == (3, "")
        assert f"row 8, column 'x': '{cell}' is not a finite number" in err and why in err


def test_what_looks_like_numbers_is_no_target_of_classes(capsys, tmp_path, numbers):
    rows = [[x, f"{x:.2f}-{x + 1:.2f}"] for x in numbers]
    path = _write(tmp_path / "d.csv", ["x", "y"], rows)
    code, out, err = _train(capsys, path, "--target", "y")
    assert (code, out) == (3, "")
    assert f"row 2, column 'y': '{rows[0][1]}' and {ROWS - 1} other values look like numbers" in err
    assert _train(capsys, path, "--target", "y", "--task", "classification")[0] == 0


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (lambda i: ["1.5.2020", "2020-02-05"][i % 2], "row 2: '1.5.2020' looks like a date"),
        (lambda i: f"{i % 5}-{i % 5 + 4}", "row 2: '0-4' looks like a number and is taken as a"),
        (lambda i: f"n{i}", "column 'c' holds 60 names in 60 rows: an identifier? (--drop c)"),
        (lambda i: "A", "column 'c' is 'A' in every row: it says nothing (--drop c)"),
        (lambda i: "7", "column 'c' is '7' in every row"),
        (lambda i: i, "column 'c' counts the rows"),
        (lambda i: i + 1, "column 'c' counts the rows"),
        (lambda i: f"{500 + i:05d}", "row 2: '00500' is read as a number; if these are codes"),
        (lambda i: ["Yes", "yes", "No"][i % 3], "'Yes' and 'yes' are taken as different names"),
        (lambda i: ["low", "7", "high"][i % 3], "holds names and numbers ('7' in row 3)"),
    ],
)
def test_columns_that_are_hardly_meant_so_are_named(capsys, tmp_path, numbers, cells, message):
    rows = [[x, cells(i), _kind(x)] for i, x in enumerate(numbers)]
    path = _write(tmp_path / "d.csv", ["x", "c", "y"], rows)
    code, _, err = _train(capsys, path, "--target", "y", "--quiet")
    assert code == 0
    warnings = [line for line in err.splitlines() if "no better than" not in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: ") and message in warnings[0]
    assert "'c'" not in _train(capsys, path, "--target", "y", "--quiet", "--drop", "c")[2]


def test_counts_taken_as_classes_are_named(capsys, tmp_path, numbers):
    rows = [[x, i % 15] for i, x in enumerate(numbers)]
    path = _write(tmp_path / "d.csv", ["x", "y"], rows)
    _, _, err = _train(capsys, path, "--target", "y", "--quiet")
    assert "holds 15 different whole numbers: each is taken as a class" in err
    _, out, err = _train(capsys, path, "--target", "y", "--task", "regression", "--quiet")
    assert "whole numbers" not in err and out.startswith("held-out r2")


def test_dropped_rows_are_counted_by_column(capsys, tmp_path, numbers):
    rows = [
        [x, "note" if i % 10 == 0 else "", ["NA", "a", "b"][i % 3], _kind(x)]
        for i, x in enumerate(numbers)
    ]
    path = _write(tmp_path / "d.csv", ["x", "Comments", "c", "y"], rows)
    code, out, err = _train(capsys, path, "--target", "y", "--missing", "error")
    gaps = "Comments: 54 of 60 (first in row 3), c: 20 of 60 (first in row 2)"
    assert (code, out) == (3, "")
    assert (
        f"has missing values in {gaps}. Fill them in (--missing mean), or leave out those rows"
        in err
    )
    code, _, err = _train(capsys, path, "--target", "y", "--missing", "drop", "--quiet")
    assert code == 0
    assert f"warning: {path}: 56 of 60 rows left out: values are missing in {gaps}" in err
    assert "--drop NAME" in err
    drop = ("--missing", "drop", "--drop", "Comments")
    code, out, err = _train(capsys, path, "--target", "y", *drop)
    assert "20 of 60 rows left out: values are missing in c: 20 of 60 (first in row 2)" in err
    assert "(8 rows; always" in out
    code, _, err = _train(capsys, path, "--target", "c", "--drop", "Comments", "--missing", "error")
    assert code == 3 and "--drop NAME" not in err  # the target cannot be dropped
    path = _write(tmp_path / "e.csv", ["x", "c", "y"], [[1, "", "a"], [2, "x", ""]])
    code, _, err = _train(capsys, path, "--target", "y", "--missing", "drop")
    assert code == 3 and "every row has a missing value, in c: 1 of 2 (row 2), y: 1 of 2" in err


@pytest.mark.parametrize("value", ["A", "3.5", "7"])
def test_a_target_that_is_the_same_everywhere_is_refused(capsys, tmp_path, numbers, value):
    path = _write(tmp_path / "d.csv", ["x", "y"], [[x, value] for x in numbers])
    code, out, err = _train(capsys, path, "--target", "y")
    assert (code, out) == (3, "")
    assert "'y' is " in err and "in all 60 rows: there is nothing to learn" in err
    np.savez(tmp_path / "d.npz", X=numbers[:, None], y=np.full(ROWS, 3))
    code, _, err = _train(capsys, tmp_path / "d.npz")
    assert code == 3 and "'y' is 3 in all 60 samples: there is nothing to learn" in err


def test_places_are_those_of_the_file_when_rows_were_dropped(capsys, tmp_path, numbers):
    rows = [[f"{1000 + i:,}", f"{x} kg", _kind(x)] for i, x in enumerate(numbers)]
    rows[0][1] = rows[1][2] = ""
    path = _write(tmp_path / "d.csv", ["n", "w", "y"], rows)
    code, _, err = _train(capsys, path, "--target", "y", "--missing", "drop")
    assert code == 0
    assert f"{path}, row 2, column 'n': '1,000' is read as 1000" in err
    assert f"'{numbers[1]} kg' (row 3, column 'w') as {numbers[1]} in 'kg'" in err
    rows = [[n, f"{i} kg" if i else "", y] for i, (n, _, y) in enumerate(rows)]
    path = _write(tmp_path / "d.tsv", ["n", "w", "y"], rows, "\t")
    code, _, err = _train(capsys, path, "--target", "y", "--missing", "drop")
    assert code == 3 and "row 2, column 'n': '1,000' can mean" in err


@pytest.mark.parametrize("validation", ["0", "0.5"])
def test_regressions_with_and_without_a_part_held_out(capsys, tmp_path, numbers, validation):
    path = _write(tmp_path / "d.csv", ["x", "y"], [[x, 2 * x] for x in numbers])
    code, out, _ = _train(capsys, path, "--target", "y", "--validation", validation, "--quiet")
    assert code == 0
    assert out.startswith("held-out r2" if float(validation) else "training r2")
    np.savez(tmp_path / "d.npz", X=numbers[:, None], y=np.stack([numbers, -numbers], 1))
    code, _, _ = _train(capsys, tmp_path / "d.npz", "--validation", validation, "--quiet")
    assert code == 0


def test_small_and_rare_parts_are_named(capsys, tmp_path, numbers):
    path = _write(tmp_path / "t.csv", ["x", "y"], [[x, 2 * x] for x in numbers[:5]])
    code, out, err = _train(capsys, path, "--target", "y")
    assert code == 0
    assert "only 1 row is held out" in err and "--validation 0.5" in err
    assert re.fullmatch(r"held-out rmse \S+ \(1 row; always the mean: rmse \S+\)\n", out)
    rows = [[x, _kind(x)] for x in numbers]
    rows[3][1] = "rare"
    path = _write(tmp_path / "r.csv", ["x", "y"], rows)
    found = set()
    for seed in range(8):
        err = _train(capsys, path, "--target", "y", "--seed", seed)[2]
        found |= set(
            re.findall(r"'y' has classes with no sample in the (.*?):.*'rare' \(1 in", err)
        )
        assert "'rare' (1 in all; row 5)" in err
    assert found == {"part held out"}  # what is there once is there to be learned


def test_the_last_line_names_what_needs_no_model(capsys, tmp_path):
    x = np.random.default_rng(0).normal(size=300)
    rows = [[v, "Yes" if i % 15 == 0 else "No"] for i, v in enumerate(x)]
    path = _write(tmp_path / "d.csv", ["x", "y"], rows)
    _, out, err = _train(capsys, path, "--target", "y", "--quiet")
    found = re.fullmatch(r"held-out accuracy (\S+) \(60 rows; always 'No': (\S+)\)\n", out)
    assert found is not None and found[1] == found[2]
    assert f"the model is no better than always giving 'No' ({found[2]})" in err
    _, out, _ = _train(capsys, path, "--target", "y", "--validation", "0", "--quiet")
    assert re.match(r"training accuracy 0\.933 \(300 rows; always 'No': 0\.933\)", out)


def test_metrics_of_a_regression_are_in_its_own_units(capsys, tmp_path, numbers):
    rows = [[x, 1000 * x] for x in numbers]
    path, log = _write(tmp_path / "d.csv", ["x", "y"], rows), tmp_path / "log.csv"
    wanted = ("--target", "y", "--metrics", "mae,mse,rmse", "--log", log)
    _, out, err = _train(capsys, path, *wanted)
    found = re.match(r"held-out r2 (\S+), rmse (\S+), mae (\S+), mse (\S+) \(", out)
    assert found is not None
    _, rmse, mae, mse = map(float, found.groups())
    assert 3000 < mae < rmse < 30000 and mse == pytest.approx(rmse**2, rel=1e-3)
    with log.open() as file:
        last = list(csv.DictReader(file))[-1]
    for name, value in (("mae", mae), ("mse", mse), ("rmse", rmse)):
        assert float(last[f"val_{name}"]) == pytest.approx(value, rel=1e-3)
    shown = re.findall(r"val_mae (\S+)", err)
    assert float(shown[-1]) == pytest.approx(mae, rel=1e-3)
    _, quiet, _ = _train(capsys, path, *wanted, "--quiet")
    assert quiet == out
    code, _, err = _train(capsys, path, "--target", "y", "--metrics", "f1")
    assert code == 2 and "unknown metric for regression 'f1'. Known: mae, mse, r2, rmse." in err


def test_requested_metrics_are_in_the_last_line(capsys):
    _, out, _ = _run(
        capsys, "train", "digits", *FAST, "--metrics", "f1_macro,accuracy,top_3_accuracy", "--quiet"
    )
    number = r"\d\.\d{3}"
    pattern = (
        rf"held-out accuracy {number}, f1_macro {number}, top_3_accuracy {number} \(360 images"
    )
    assert re.match(pattern, out)


@pytest.fixture
def scored(capsys, tmp_path, numbers):
    """A model trained on labels 0.0, 1.0, 2.0, and a function that scores it on other labels."""
    labels = [float(i % 3) for i in range(ROWS)]
    rows = [[x, label] for x, label in zip(numbers, labels, strict=True)]
    path, model = _write(tmp_path / "d.csv", ["x", "y"], rows), tmp_path / "m.safetensors"
    assert _train(capsys, path, "--target", "y", "--save", model, "--quiet")[0] == 0

    def score(labels):
        rows = [[x, label] for x, label in zip(numbers, labels, strict=True)]
        _write(path, ["x", "y"], rows)
        code, out, err = _run(capsys, "predict", model, path, "--backend", "numpy")
        assert code == 0 and len(out.splitlines()) == ROWS + 1
        return err.splitlines()

    return labels, score


def test_labels_match_by_value(scored):
    labels, score = scored
    expected = score(labels)
    assert len(expected) == 1 and "(60 samples)" in expected[0]
    for spell in (lambda v: f"{v:g}", lambda v: f"{v:.3f}", lambda v: f"{v:.0e}"):
        assert score([spell(label) for label in labels]) == expected


def test_unknown_and_missing_labels_are_counted_apart(scored):
    labels, score = scored
    given = [f"{label:g}" for label in labels]
    given[5], given[7], given[9] = "Emperor", "Emperor", "NA"
    notes = score(given)
    assert len(notes) == 3
    assert (
        "1 of 60 rows are not in the score: 'y' has no value" in notes[0] and "row 11" in notes[0]
    )
    assert "2 of 60 rows are not in the score: 'y' was not among the labels" in notes[1]
    assert "('Emperor', row 7)" in notes[1]
    assert "(57 samples)" in notes[2]
    notes = score(["other"] * ROWS)
    assert len(notes) == 1 and "60 of 60 rows are not in the score" in notes[0]


def test_labels_that_differ_in_spelling_are_one_class(capsys, tmp_path, numbers):
    rows = [[x, ["0", "0.0", "1", "1.0"][i % 4]] for i, x in enumerate(numbers)]
    path = _write(tmp_path / "d.csv", ["x", "y"], rows)
    _, _, err = _train(capsys, path, "--target", "y")
    assert "classification of 'y', 2 classes (0 30, 1 30)" in err
    _, _, err = _train(capsys, path, "--target", "x", "--categorical", "y")
    assert "from 1 column, 2 inputs: y (2 names)" in err


def test_rows_with_gaps_get_an_empty_prediction_on_request(capsys, tmp_path, numbers):
    rows = [[x, "ab"[i % 2], _kind(x)] for i, x in enumerate(numbers)]
    path, model = _write(tmp_path / "d.csv", ["x", "c", "y"], rows), tmp_path / "m.safetensors"
    assert _train(capsys, path, "--target", "y", "--save", model, "--quiet")[0] == 0
    predict = ("predict", model, path, "--backend", "numpy", "--probabilities")
    whole = _run(capsys, *predict)[1].splitlines()
    rows[2][0], rows[7][1], rows[8][1] = "", "NA", "?"
    _write(path, ["x", "c", "y"], rows)
    code, out, err = _run(capsys, *predict, "--missing", "error")
    assert (code, out) == (3, "")
    assert "in c: 2 of 60 (first in row 9), x: 1 of 60 (row 4)" in err and "--missing empty" in err
    assert "--drop" not in err and "--missing drop" not in err
    code, out, err = _run(capsys, *predict, "--missing", "empty")
    assert code == 0
    expected = [",," if i in (3, 8, 9) else line for i, line in enumerate(whole)]
    assert out.splitlines() == expected
    assert "no prediction for 3 of 60 rows" in err and "(57 samples)" in err
    rows = [["", "a", "Yes"]] * 3
    _write(path, ["x", "c", "y"], rows)
    code, _, err = _run(capsys, *predict, "--missing", "empty")
    assert code == 3 and "every row has a missing value" in err


def test_gaps_of_arrays_get_an_empty_prediction_on_request(capsys, tmp_path):
    X = np.random.default_rng(0).normal(size=(40, 2))
    path, model = tmp_path / "d.npz", tmp_path / "m.safetensors"
    np.savez(path, X=X, y=X[:, 0] * 3)
    assert _train(capsys, path, "--save", model, "--quiet")[0] == 0
    X[4, 1] = np.nan
    np.savez(path, X=X, y=X[:, 0] * 3)
    predict = ("predict", model, path, "--backend", "numpy")
    code, _, err = _run(capsys, *predict)
    assert code == 3 and "X holds nan at index (4, 1)" in err and "--missing empty" in err
    code, out, err = _run(capsys, *predict, "--missing", "empty")
    assert code == 0 and out.splitlines()[5] == '""' and "(39 samples)" in err


def test_units_of_new_files_are_those_of_training(capsys, tmp_path, numbers):
    path, model = tmp_path / "d.csv", tmp_path / "m.safetensors"
    header = ["w", "price"]
    _write(path, header, [[f"{x} kg", f"${100 * x:,.2f}"] for x in numbers])
    assert _train(capsys, path, "--target", "price", "--save", model, "--quiet")[0] == 0
    assert "number" in _run(capsys, "show", model)[1]
    predict = ("predict", model, path, "--backend", "numpy")
    score = _run(capsys, *predict)[2].splitlines()[-1]
    _write(path, header, [[x, f"{100 * x:.2f}"] for x in numbers])
    err = _run(capsys, *predict)[2]
    assert "column 'w' has no unit, the training data had 'kg'" in err
    assert "column 'price' has no unit, the training data had '$'" in err
    assert err.splitlines()[-1] == score
    _write(path, header, [[f"{1000 * x:.0f} g", f"€{100 * x:,.2f}"] for x in numbers])
    code, _, err = _run(capsys, *predict)
    assert code == 3 and "is in 'g', training was in 'kg'. Convert it." in err
    _write(path, header, [[x, f"€{100 * x:,.2f}"] for x in numbers])
    code, _, err = _run(capsys, *predict)
    assert code == 0 and "no score by 'price'" in err and "r2" not in err


def test_a_target_that_cannot_be_read_is_no_score_and_no_error(capsys, tmp_path, numbers):
    path, model = tmp_path / "d.csv", tmp_path / "m.safetensors"
    _write(path, ["x", "y"], [[x, 3 * x] for x in numbers])
    assert _train(capsys, path, "--target", "y", "--save", model, "--quiet")[0] == 0
    predict = ("predict", model, path, "--backend", "numpy")
    cells = [3 * x for x in numbers]
    cells[3], cells[4] = "abc", ""
    _write(path, ["x", "y"], zip(numbers, cells, strict=True))
    code, out, err = _run(capsys, *predict)
    assert code == 0 and len(out.splitlines()) == ROWS + 1
    assert "'y' is no finite number ('abc', row 5)" in err and "'y' has no value" in err
    assert "(58 samples)" in err
    _write(path, ["x", "y"], [[x, "abc"] for x in numbers])
    code, _, err = _run(capsys, *predict)
    assert code == 0 and err == "note: no score by 'y': it holds no numbers.\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", "0.01"), "begun with --lr 0.001; this call has --lr 0.01."),
        (("--hidden", "5"), "begun with --hidden 4; this call has --hidden 5."),
        (("--hidden", "none"), "this call has --hidden none."),
        (("--batch-size", "16"), "begun with --batch-size 32"),
        (("--weight-decay", "0.1"), "begun with --weight-decay 0.0"),
        (("--class-weight", "balanced"), "begun with no --class-weight"),
        (("--optimizer", "sgd"), "begun with --optimizer adam"),
        (("--dropout", "0.5"), "begun with --dropout 0.0"),
        (("--schedule", "cosine"), "begun with no --schedule"),
        (("--early-stopping", "3"), "begun with no --early-stopping"),
        (("--log", "log.csv"), "begun with no --log; this call has --log."),
    ],
)
def test_a_run_does_not_go_on_with_other_options(
    capsys, tmp_path, numbers, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "d.csv", ["x", "y"], [[x, _kind(x)] for x in numbers])
    call = ("--target", "y", "--resume", tmp_path / "run.ckpt", "--quiet")
    assert _train(capsys, path, *call)[0] == 0
    before = (tmp_path / "run.ckpt").read_bytes()
    code, out, err = _train(capsys, path, *call, *options)
    assert (code, out) == (4, "")
    assert message in err and "another --resume file to start anew" in err
    assert (tmp_path / "run.ckpt").read_bytes() == before


def test_a_finished_run_says_so_and_gives_its_result(capsys, tmp_path, numbers):
    path = _write(tmp_path / "d.csv", ["x", "y"], [[x, _kind(x)] for x in numbers])
    call = ("--target", "y", "--resume", tmp_path / "run.ckpt")
    _, first, _ = _train(capsys, path, *call)
    code, out, err = _train(capsys, path, *call)
    assert (code, out) == (0, first)
    assert "is of a finished run (2 epochs): nothing is trained. A higher --epochs" in err
    code, _, err = _train(capsys, path, *call, "--epochs", "3")
    assert code == 0 and "nothing is trained" not in err and "epoch 3/3" in err


def test_excels_first_line_blank_lines_and_a_mark_are_no_trouble(capsys, tmp_path, numbers):
    rows = [f"{_german(x)};{_kind(x)}" for x in numbers]
    path = tmp_path / "d.csv"
    path.write_text("\ufeffsep=;\nx;y\n\n" + "\n".join(rows) + "\n  \n;\n", encoding="utf-8")
    code, _, err = _train(capsys, path, "--target", "y")
    assert code == 0
    assert "48 rows to train on" in err and "(row 4, column 'x')" in err


def test_a_target_cannot_be_dropped(capsys, tmp_path, numbers):
    path = _write(tmp_path / "d.csv", ["x", "y"], [[x, _kind(x)] for x in numbers])
    code, _, err = _train(capsys, path, "--target", "y", "--drop", "y")
    assert code == 2 and "--drop y: it is the target" in err


@pytest.mark.parametrize("task", ["feature", "target"])
@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            [str(2**60 + i) for i in range(ROWS)],
            "row 3: 1152921504606846977 and 1152",
        ),
        ([f"0.1234567890123456{i:04d}" for i in range(ROWS)], "row 3: 0.12345678901234560001 and"),
        ([str(2**60 + 1000 * i) for i in range(ROWS)], ""),
        ([f"{i + 0.1:.17f}" for i in range(ROWS)], ""),
        ([f"{i}.00000000000000000000" for i in range(ROWS)], ""),
    ],
)
def test_numbers_of_more_digits_than_are_kept(capsys, tmp_path, numbers, cells, said, task):
    rows = [[cell, x] for cell, x in zip(cells, numbers)]
    path = _write(tmp_path / "d.csv", ["n", "x"], rows)
    name = "n" if task == "target" else "x"
    code, _, err = _train(capsys, path, "--target", name, "--task", "regression")
    same = len({float(cell) for cell in cells}) == 1
    assert code == (3 if same and task == "target" else 0)
    assert ("are read as the same number" in err) == bool(said)
    assert said in err


def test_long_numbers_that_float64_cannot_tell_apart_are_not_few(capsys, tmp_path, numbers):
    rows = [[x, 1_700_000_000_000_000_000 + 10 * i] for i, x in enumerate(numbers)]
    path = _write(tmp_path / "d.csv", ["x", "n"], rows)
    code, _, err = _train(capsys, path, "--target", "n")
    assert code == 0 and "regression of 'n'" in err and "row 3: 1700000000000000010 and" in err


@pytest.mark.parametrize("name", ["X", "y"])
def test_arrays_of_more_digits_than_are_kept(capsys, tmp_path, name):
    arrays = {"X": np.eye(20), "y": np.linspace(0.0, 1.0, 20)}
    arrays[name] = arrays[name].astype(np.longdouble)
    np.savez(tmp_path / "d.npz", **arrays)
    code, _, err = _train(capsys, tmp_path / "d.npz", "--target", "y")
    assert code == 3 and f"{name} has dtype" in err and "of more digits than float64 has" in err


@pytest.mark.parametrize(
    ("data", "option", "value", "only"),
    [
        ("digits", "target", "x", "files"),
        ("digits", "validation", "0.5", "files"),
        ("digits", "drop", "a", "CSV files"),
        ("npz", "drop", "a", "CSV files"),
        ("npz", "categorical", "X", "CSV files"),
        ("npz", "missing", "drop", "CSV files"),
        ("npz", "decimal", "comma", "CSV files"),
    ],
)
def test_options_that_would_be_ignored_are_refused(capsys, tmp_path, data, option, value, only):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.eye(20), y=np.linspace(0.0, 1.0, 20))
    code, _, err = _train(capsys, data if data == "digits" else path, f"--{option}", value)
    assert code == 2 and f"--{option} is for {only}, and means nothing for" in err
