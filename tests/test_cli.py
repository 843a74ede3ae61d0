"""The command line, called in the process except where the process itself matters."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from gpubp.cli import main


def _train(*arguments):
    return main(["train", "digits", "--backend", "numpy", *arguments])


def test_train_prints_the_accuracy_on_stdout_and_progress_on_stderr(capsys):
    assert _train("--epochs", "3", "--hidden", "32", "--batch-size", "64", "--lr", "0.01") == 0
    out, err = capsys.readouterr()
    found = re.fullmatch(r"held-out accuracy (0\.\d{3}) \(360 images; always \d: 0\.\d{3}\)\n", out)
    assert found is not None
    assert float(found[1]) > 0.85
    lines = err.splitlines()
    assert lines[0] == "digits: 1,437 images to train on, 360 held out"
    assert lines[1].startswith("classification of 'y', 10 classes (0 178, 1 182, ")
    assert lines[2] == "from 64 inputs"
    assert [line.split()[1] for line in lines[3:]] == ["1/3", "2/3", "3/3"]


def test_train_is_reproducible_and_quiet(capsys):
    arguments = ("--epochs", "1", "--hidden", "8", "--optimizer", "sgd", "--lr", "0.2", "--quiet")
    results = []
    for seed in ("1", "1", "2"):
        assert _train(*arguments, "--seed", seed) == 0
        out, err = capsys.readouterr()
        assert err == ""
        results.append(out)
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs=0"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--hidden", "0"], "'0' are no layer sizes: expected whole numbers above 0"),
        (["--hidden", "64,a"], "--hidden none is for no hidden layer"),
        (["--hidden", "64,-3"], "'64,-3' are no layer sizes"),
        (["--validation", "much"], "much is not a share in [0, 1)"),
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'. See gpubp train --help."),
        (["--missing", "dorp"], "Did you mean 'drop'"),
        (["--hiden", "64"], "unknown option --hiden. Did you mean --hidden?"),
        (["--learning-rate=1"], "unknown option --learning-rate."),
        (["--batchsize=8"], "Did you mean --batch-size?"),
        (["more.csv"], "unknown argument more.csv."),
        (["--metrics", "rmse"], "unknown metric for classification 'rmse'"),
        (["--backend", "numpi"], "Did you mean 'numpy'"),
        (["--seed", "-1"], "seed"),
        (["--activation", "rleu"], "Did you mean 'relu'"),
        (["--optimizer", "sgdd"], "Did you mean 'sgd'"),
        (["--loss", "mse"], "unknown loss for classification 'mse'"),
        (["--metrics", "acuracy"], "Did you mean 'accuracy'"),
        (["--dropout", "1.5"], "probability must be in [0, 1]"),
        (["--max-time", "0"], "max_time=0"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments, message, capsys):
    assert _train(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gpubp: ")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["train"], ["predict", "m.safetensors"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage: gpubp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["predict", "m", "d.csv", "--probabilties"], "Did you mean --probabilities?"),
        (["predict", "m", "d.csv", "--hidden", "3"], "gpubp predict: unknown option --hidden."),
        (["info", "--quiet"], "gpubp info: unknown option --quiet."),
    ],
)
def test_mistyped_words_are_one_line_with_the_nearest(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("nothing", ["none", "", "None"])
def test_a_model_without_hidden_layers_trains(nothing, capsys, tmp_path):
    from gpubp.train import load_model

    path = str(tmp_path / "m.safetensors")
    assert _train("--hidden", nothing, "--epochs", "1", "--save", path, "--quiet") == 0
    assert [p.value.shape for p in load_model(path).model.parameters()] == [(10, 64), (10,)]


def test_info_lists_every_backend_and_marks_one(capsys):
    from gpubp.backends import default_backend_name, names

    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in names():
        assert re.search(rf"^{name}( \(default\))?: (not )?available", out, re.MULTILINE)
    assert out.count("(default)") == 1
    assert f"{default_backend_name()} (default): available" in out


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out.startswith("gpubp ")


def test_help_does_not_import_the_compiler():
    code = "import sys, gpubp.cli as c; c._parser(); print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
