"""The command line end to end: CSV and NPZ files to models, plots, logs and predictions."""

from __future__ import annotations

import csv
import re
import subprocess
import sys

import csvfiles
import numpy as np
import pytest

from gpubp.cli import main
from gpubp.train import load_model


def _run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def _fails(capsys, code, message, *arguments):
    found, out, err = _run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("gpubp: ")
    assert message in err


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


NUMPY = ("--backend", "numpy")
QUIET = (*NUMPY, "--quiet")


def test_classification_with_categories(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    data = csvfiles.classification(tmp_path / "some.csv")
    model, plot, out = (tmp_path / name for name in ("m.safetensors", "curve.png", "p.csv"))
    code, text, err = _run(
        capsys, "train", data, "--target", "kind", "--save", model, "--plot", plot,
        "--epochs", "25", "--lr", "0.01", *NUMPY,
    )  # fmt: skip
    assert code == 0
    found = re.fullmatch(
        r"held-out accuracy (\d\.\d{3}) \(60 rows; always 'cat': 0\.\d{3}\)\n", text
    )
    assert found is not None
    assert float(found[1]) > 0.9
    assert len(err.splitlines()) == 3 + 25
    assert plot.read_bytes().startswith(b"\x89PNG")
    code, text, err = _run(capsys, "predict", model, data, "-o", out, "--probabilities", *NUMPY)
    assert (code, text) == (0, "")
    predicted, truth = _rows(out), _rows(data)
    right = np.mean([a["prediction"] == b["kind"] for a, b in zip(predicted, truth, strict=True)])
    assert right > 0.9
    assert err == f"accuracy {right:.3f} (300 samples)\n"
    for row in predicted[:20]:
        shares = {k.removeprefix("probability_"): float(v) for k, v in row.items() if "_" in k}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        assert max(shares, key=shares.get) == row["prediction"]


def test_regression_with_categories(capsys, tmp_path):
    data = csvfiles.regression(tmp_path / "houses.csv")
    model, log = tmp_path / "m.safetensors", tmp_path / "run.csv"
    code, text, err = _run(
        capsys, "train", data, "--target", "price", "--drop", "id", "--save", model, "--log", log,
        "--epochs", "40", "--lr", "0.01", "--metrics", "r2,mae", *QUIET,
    )  # fmt: skip
    assert (code, err) == (0, "")
    numbers = r"held-out r2 (\d\.\d{3}), rmse (\d+\.?\d*), mae (\d+\.?\d*)"
    found = re.fullmatch(numbers + r" \(60 rows; always the mean: rmse (\d+)\)\n", text)
    assert found is not None
    assert float(found[1]) > 0.98
    assert float(found[3]) < float(found[2]) < 400 < float(found[4])
    assert float(_rows(log)[-1]["val_mae"]) == pytest.approx(float(found[3]), rel=1e-3)
    assert list(_rows(log)[0]) == ["epoch", "loss", "r2", "mae", "val_loss", "val_r2", "val_mae"]
    assert len(_rows(log)) == 40
    code, text, err = _run(capsys, "predict", model, data, *NUMPY)
    assert code == 0
    assert re.fullmatch(r"r2 \d\.\d{3}, rmse .* \(300 samples\)\n", err)
    lines = text.splitlines()
    assert lines[0] == "prediction"
    truth = [float(row["price"]) for row in _rows(data)]
    assert np.sqrt(np.mean((np.array(lines[1:], float) - truth) ** 2)) < 400


def test_a_file_without_the_target_is_predicted_without_a_score(capsys, tmp_path):
    data = csvfiles.classification(tmp_path / "some.csv", 60)
    model = tmp_path / "m.safetensors"
    assert _run(capsys, "train", data, "--target", "kind", "--save", model, *QUIET)[0] == 0
    new = csvfiles.write(
        tmp_path / "new.csv", [{"colour": "red", "extra": "x", "width": "0", "length": "999"}]
    )
    code, text, err = _run(capsys, "predict", model, new, *NUMPY)
    assert (code, err) == (0, "")
    assert text.splitlines()[0] == "prediction"
    assert text.splitlines()[1] in ("cat", "dog", "emu")


def test_npz_files_train_and_predict(capsys, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(100.0, 20.0, size=(200, 3, 2))
    labels = np.where(X[:, 0, 0] > 100, "high", "low")
    path, model = tmp_path / "d.npz", tmp_path / "m.safetensors"
    np.savez(path, X=X, y=labels, pair=X[:, 0] * [3.0, -2.0])
    arguments = ("--epochs", "30", "--lr", "0.01", "--save", model, *QUIET)
    code, text, _ = _run(capsys, "train", path, *arguments)
    assert code == 0
    assert re.match(r"held-out accuracy (0\.9|1\.0)", text)
    code, text, err = _run(capsys, "predict", model, path, *NUMPY)
    assert set(text.splitlines()[1:]) == {"high", "low"}
    assert re.match(r"accuracy (0\.9|1\.0)", err)
    code, text, _ = _run(capsys, "train", path, "--target", "pair", *arguments)
    assert code == 0
    assert re.match(r"held-out r2 (0\.9\d\d|1\.000), rmse", text)
    code, text, _ = _run(capsys, "predict", model, path, *NUMPY)
    assert text.splitlines()[0] == "prediction_0,prediction_1"
    np.savez(path, X=X[:, :2])
    _fails(capsys, 3, "X has 4 numbers a sample, the model takes 6", "predict", model, path, *NUMPY)


def test_digits_are_predicted(capsys, tmp_path):
    model = tmp_path / "m.safetensors"
    train = ("train", "digits", "--epochs", "3", "--lr", "0.01", "--save", model, *QUIET)
    code, text, _ = _run(capsys, *train)
    accuracy = text.split()[2]
    code, text, err = _run(capsys, "predict", model, "digits", *NUMPY)
    assert code == 0
    assert err == f"accuracy {accuracy} (360 samples)\n"
    assert len(text.splitlines()) == 361


def test_show_says_what_a_model_file_holds(capsys, tmp_path):
    data = csvfiles.classification(tmp_path / "some.csv", 60)
    model, state = tmp_path / "m.safetensors", tmp_path / "run.ckpt"
    arguments = ("--target", "kind", "--hidden", "7,5", "--activation", "tanh", "--dropout", "0.1")
    saved = ("--save", model, "--resume", state, "--epochs", "2")
    assert _run(capsys, "train", data, *arguments, *saved, *QUIET)[0] == 0
    code, text, err = _run(capsys, "show", model)
    assert (code, err) == (0, "")
    for part in (
        "Linear(in_features=5, out_features=7, bias=True)",
        "Tanh()",
        "Dropout(p=0.1)",
        "7x5",
        f"{5 * 7 + 7 + 7 * 5 + 5 + 5 * 3 + 3:,} numbers",
        "classification of 'kind' from 5 numbers",
        "classes: cat, dog, emu",
        "colour: one of blue, green, red",
    ):
        assert part in text
    code, text, _ = _run(capsys, "show", state)
    assert "checkpoint" in text
    assert "trained for 2 epochs, 4 steps" in text
    assert "val_accuracy" in text


def test_resume_goes_on_to_the_same_end(capsys, tmp_path):
    data = csvfiles.classification(tmp_path / "some.csv", 120)
    models = [tmp_path / f"{i}.safetensors" for i in range(2)]
    common = ("train", data, "--target", "kind", "--epochs", "6", "--dropout", "0.2", *NUMPY)
    assert _run(capsys, *common, "--save", models[0])[0] == 0
    resumed = (*common, "--save", models[1], "--resume", tmp_path / "run.ckpt")
    code, _, err = _run(capsys, *resumed, "--max-steps", "8")
    assert code == 0
    assert "run.ckpt does not exist yet: starting anew" in err
    assert "stopped: max_steps" in err
    code, _, err = _run(capsys, *resumed)
    assert code == 0
    assert err.splitlines()[3].startswith("epoch 3/6")
    for name, value in load_model(models[0]).model.state_dict().items():
        np.testing.assert_array_equal(load_model(models[1]).model.state_dict()[name], value)
    _fails(capsys, 4, "is of a run on other data", *resumed, "--seed", "3", "--quiet")
    _fails(capsys, 4, "begun with --hidden 128", *resumed, "--hidden", "9", "--quiet")
    _fails(capsys, 4, "holds a model", *common, "--resume", models[0], "--quiet")
    (tmp_path / "run.ckpt").write_bytes(b"garbage")
    _fails(capsys, 4, "no safetensors file", *resumed, "--quiet")


def test_options_of_a_toml_file_are_overridden_by_the_command_line(capsys, tmp_path):
    data = csvfiles.classification(tmp_path / "some.csv", 60)
    config = tmp_path / "c.toml"
    config.write_text(
        'target = "kind"\nhidden = [6, 4]\nepochs = 3\nlr = 1\nquiet = true\nbackend = "numpy"\n'
        'batch-size = 10\ndrop = ["width"]\nmissing = "drop"\n'
    )
    log = tmp_path / "run.csv"
    model = tmp_path / "m.safetensors"
    arguments = ("--config", config, "--epochs", "2", "--log", log, "--save", model)
    code, _, err = _run(capsys, "train", data, *arguments)
    assert (code, "epoch" in err) == (0, False)
    assert len(_rows(log)) == 2
    assert [len(p.value) for p in load_model(model).model.parameters()] == [6, 6, 4, 4, 3, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = \n", "is no TOML"),
        ("epoch = 3\n", "Did you mean 'epochs'"),
        ('epochs = "many"\n', "--epochs is 'many'"),
        ("epochs = true\n", "--epochs is True, expected text or a number"),
        ("quiet = 1\n", "--quiet is 1, expected true or false"),
        ('missing = "dorp"\n', "Did you mean 'drop'"),
        ("validation = 2.0\n", "not a share in [0, 1)"),
        ("[train]\nepochs = 3\n", "[train] is a table; expected options alone, such as epochs = 3"),
    ],
)
def test_wrong_configurations(capsys, tmp_path, text, message):
    config = tmp_path / "c.toml"
    config.write_text(text)
    _fails(capsys, 2, message, "train", "digits", "--config", config)


def test_configurations_that_are_not_there(capsys, tmp_path):
    missing = tmp_path / "c.toml"
    _fails(capsys, 2, "cannot be read: No such file", "train", "digits", "--config", missing)


def _broken(folder, kind):
    path = folder / "b.csv"
    text = csvfiles.classification(folder / "some.csv", 30).read_text()
    lines = text.splitlines()
    if kind == "gap":
        lines[5] = lines[5].replace(",red,", ",,").replace(",green,", ",,").replace(",blue,", ",,")
    if kind == "number":
        lines[7] = "12O0" + lines[7][lines[7].index(",") :]
    if kind == "short":
        lines[9] = "1"
    if kind == "empty":
        lines = []
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gap", "missing values in colour: 1 of 30 (row 6). Fill them in"),
        ("number", "row 8, column 'length': '12O0' is not a finite number"),
        ("short", "row 10: 1 values under a header of 4 columns"),
        ("empty", "is empty"),
    ],
)
def test_broken_data_files_are_code_3(capsys, tmp_path, kind, message):
    path = _broken(tmp_path, kind)
    save = ("--save", tmp_path / "m.safetensors", "--missing", "error")
    _fails(capsys, 3, message, "train", path, "--target", "kind", *save, *QUIET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.csv", "some.csv"]


def test_rows_with_gaps_may_be_dropped(capsys, tmp_path):
    path = _broken(tmp_path, "gap")
    line = ("train", path, "--target", "kind", "--missing", "drop", "--epochs", "2")
    code, text, err = _run(capsys, *line, *QUIET)
    assert code == 0
    assert "(6 rows; always" in text  # a fifth of 29
    assert "b.csv: 1 of 30 rows left out: values are missing in colour: 1 of 30 (row 6)." in err


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "expected digits, or a file that ends in", ["faces"]),
        (2, "--target is missing: which of length, width, colour, kind", ["DATA"]),
        (2, "Did you mean 'kind'", ["DATA", "--target", "kin"]),
        (2, "Did you mean 'width'", ["DATA", "--target", "kind", "--drop", "widht"]),
        (2, "unknown task", ["DATA", "--target", "kind", "--task", "clustering"]),
        (3, "cannot be read: No such file", ["missing.csv", "--target", "y"]),
        (3, "cannot be read: No such file", ["missing.npz"]),
        (3, "folder does not exist", ["digits", "--save", "no/where.safetensors"]),
        (3, "folder does not exist", ["digits", "--plot", "no/where.png"]),
        (5, 'pip install "gpubp[tensorboard]"', ["digits", "--log", "runs"]),
        (2, "no schedule", ["digits", "--schedule", "StepLR("]),
    ],
)
def test_wrong_arguments_of_train_are_refused_and_leave_no_file(
    capsys, tmp_path, monkeypatch, code, message, arguments
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    csvfiles.classification(tmp_path / "some.csv", 30)
    given = ["some.csv" if a == "DATA" else a for a in arguments]
    if code == 2 and message == "no schedule":
        message = "schedule"
    _fails(capsys, code, message, "train", *given, *QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["some.csv"]


def test_wrong_files_of_predict(capsys, tmp_path):
    data = csvfiles.classification(tmp_path / "some.csv", 60)
    model = tmp_path / "m.safetensors"
    assert _run(capsys, "train", data, "--target", "kind", "--save", model, *QUIET)[0] == 0
    _fails(capsys, 4, "No such file", "predict", tmp_path / "no.safetensors", data)
    _fails(capsys, 4, "no safetensors file", "predict", data, data)
    _fails(capsys, 4, "It holds data: a model file comes from", "show", data)
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04")
    _fails(capsys, 4, "model.load_state_dict(torch.load(", "show", tmp_path / "w.pt")
    _fails(capsys, 3, "No such file", "predict", model, tmp_path / "no.csv")
    _fails(capsys, 3, "folder does not exist", "predict", model, data, "-o", tmp_path / "no" / "p")
    other = csvfiles.write(
        tmp_path / "o.csv", [{"length": "1", "width": "2", "colour": "pink"}] * 2
    )
    code, _, err = _run(capsys, "predict", model, other, *NUMPY)
    assert code == 0 and "'colour': 2 of 2 rows have a name that the training data did not" in err
    raw = bytearray(model.read_bytes())
    raw[-5] ^= 1
    model.write_bytes(raw)
    for command in (["predict", model, data], ["show", model]):
        _fails(capsys, 4, "is damaged", *command)


def test_a_run_that_diverges_is_code_1_and_saves_nothing(capsys, tmp_path):
    data = csvfiles.regression(tmp_path / "houses.csv", 60)
    model = tmp_path / "m.safetensors"
    arguments = ("--target", "price", "--drop", "id", "--optimizer", "sgd", "--lr", "1e30")
    save = ("--save", model, "--epochs", "20")
    _fails(capsys, 1, "training diverged", "train", data, *arguments, *save, *QUIET)
    assert not model.exists()


def test_early_stopping_and_class_weights(capsys, tmp_path):
    data = csvfiles.classification(tmp_path / "some.csv", 60)
    arguments = ("--early-stopping", "2", "--lr", "0.5", "--class-weight", "balanced")
    code, _, err = _run(
        capsys, "train", data, "--target", "kind", "--epochs", "500", *arguments, *NUMPY
    )
    assert code == 0
    assert "stopped: early stopping: val_loss was best in epoch" in err
    assert len(err.splitlines()) < 400


@pytest.mark.parametrize(
    "schedule",
    ["cosine", "step", "exponential", "polynomial", "plateau", "onecycle", "StepLR(step_size=1)"],
)
def test_schedules_move_the_learning_rate(capsys, tmp_path, schedule):
    log, state = tmp_path / "run.csv", tmp_path / "run.ckpt"
    arguments = ("--epochs", "14", "--lr", "0.05", "--schedule", schedule, *QUIET)
    data = csvfiles.classification(tmp_path / "some.csv", 40)
    train = ("train", data, "--target", "kind", "--hidden", "4", "--log", log, *arguments)
    assert _run(capsys, *train, "--resume", state, "--max-steps", "8")[0] == 0
    assert _run(capsys, *train, "--resume", state)[0] == 0
    resumed = _rows(log)
    assert len({row["lr"] for row in resumed}) > 1 or schedule == "plateau"
    assert _run(capsys, *train)[0] == 0
    assert _rows(log) == resumed


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosin", "Did you mean 'cosine'"),
        ("StepLR(stepsize=3)", "unexpected keyword argument 'stepsize'"),
        ("StepLR(3)", "expected NAME(key=value, ...)"),
        ("StepLR(step_size=open)", "is no schedule"),
        ("Optimizer(x=1)", "unknown schedule"),
    ],
)
def test_schedules_that_do_not_exist(capsys, schedule, message):
    _fails(capsys, 2, message, "train", "digits", "--schedule", schedule, *QUIET)


def test_help_has_examples_and_exit_codes():
    for command in ("train", "predict", "show"):
        run = subprocess.run(
            [sys.executable, "-c", "from gpubp.cli import main; main()", command, "--help"],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0
        assert "examples:" in run.stdout
        assert "exit codes:" in run.stdout
        assert f"gpubp {command} " in run.stdout


def test_a_reader_who_has_gone_is_no_error(tmp_path):
    code = "import sys; from gpubp.cli import main; sys.exit(main())"
    model = tmp_path / "m.safetensors"
    train = ["train", "digits", "--epochs", "1", "--save", str(model), "--backend", "numpy"]
    subprocess.run([sys.executable, "-c", code, *train], check=True, capture_output=True)
    command = [sys.executable, "-c", code, "predict", str(model), "digits", "--backend", "numpy"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate()
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
