"""The command line with images: arrays, folders, predictions, what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpubp import nn
from gpubp.cli import main
from gpubp.train import load_model

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
NUMPY = ("--backend", "numpy")
QUIET = (*NUMPY, "--quiet")


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def fails(capsys: Any, code: int, message: str, *arguments: Any) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 1 and message in err


def pictures(channels: int, samples: int = 60) -> tuple[Any, Any]:
    """Bright left or right halves, uint8 (samples, channels, 6, 8)."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, samples)
    X = rng.integers(0, 90, (samples, channels, 6, 8))
    for i, side in enumerate(y):
        X[i, :, :, 4 * side : 4 * side + 4] += 120
    return X.astype(np.uint8), y


def folder(root: Path, channels: int = 3, classes: bool = True) -> Path:
    X, y = pictures(channels)
    for i, (image, side) in enumerate(zip(X, y)):
        where = root / ("left", "right")[side] if classes else root
        where.mkdir(parents=True, exist_ok=True)
        pixels = image[0] if channels == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(where / f"{i:02d}.png")
    return root


def of(text: str, name: str) -> float:
    return float(text.split(f"{name} ")[1].split()[0].rstrip(","))


@pytest.mark.parametrize("shape", [(60, 1, 6, 8), (60, 6, 8)])
def test_arrays_of_images(shape: Any, capsys: Any, tmp_path: Path) -> None:
    X, y = pictures(1)
    np.savez(tmp_path / "images.npz", X=X.reshape(shape), y=y)
    model = tmp_path / "m.safetensors"
    code, out, err = run(
        capsys, "train", tmp_path / "images.npz", "--model", "cnn", "--channels", "4,6",
        "--epochs", 4, "--lr", 0.02, "--save", model, *NUMPY,
    )  # fmt: skip
    assert code == 0 and of(out, "accuracy") > 0.9
    lines = err.splitlines()
    assert lines[2] == (
        "from images of 1 x 6 x 8 (channels, height, width), standardised by channel"
    )
    assert len(lines) == 3 + 4 and "val_accuracy" in lines[-1]
    found = load_model(model)
    kinds = [type(layer).__name__ for layer in found.model]
    assert kinds == ["Conv2d", "ReLU", "MaxPool2d"] * 2 + ["Flatten", "Linear"]
    assert found.model[0].weight.shape == (4, 1, 3, 3) and found.model[7].weight.shape == (2, 12)
    scale = found.extra["encoding"]["scale"]
    assert len(scale["mean"]) == 1 and 60 < scale["mean"][0] < 150
    code, out, err = run(capsys, "predict", model, tmp_path / "images.npz", *NUMPY)
    predicted = [int(line) for line in out.splitlines()[1:]]
    assert code == 0 and np.mean(np.equal(predicted, y)) > 0.9
    assert err == f"accuracy {np.mean(np.equal(predicted, y)):.3f} (60 samples)\n"


def test_the_default_cnn_of_the_digits(capsys: Any, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    code, out, _ = run(
        capsys, "train", "digits", "--model", "cnn", "--max-steps", 3, "--save", model, *QUIET
    )
    assert code == 0 and "360 images" in out
    found = load_model(model).model
    assert [found[i].weight.shape for i in (0, 3, 7)] == [(16, 1, 3, 3), (32, 16, 3, 3), (10, 128)]
    code, out, err = run(capsys, "predict", model, "digits", *NUMPY)
    assert code == 0 and len(out.splitlines()) == 361 and "360 samples" in err


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_images(channels: int, capsys: Any, tmp_path: Path) -> None:
    root = folder(tmp_path / "sides", channels)
    (root / "left" / "list.txt").write_text("no image")
    model, out = tmp_path / "m.safetensors", tmp_path / "p.csv"
    code, text, err = run(
        capsys, "train", root, "--channels", 4, "--epochs", 6, "--lr", 0.02, "--hidden", 5,
        "--dropout", 0.1, "--save", model, *NUMPY,
    )  # fmt: skip
    assert code == 0 and of(text, "accuracy") > 0.9 and "(12 images;" in text
    lines = err.splitlines()
    assert lines[0] == f"{root}: 48 images to train on, 12 held out"
    assert lines[1].startswith("classification of 'folder', 2 classes (left ")
    assert lines[2].startswith(f"from images of {channels} x 6 x 8")
    assert "1 file left out that are no PNG or JPEG" in err
    kinds = [type(layer).__name__ for layer in load_model(model).model]
    assert kinds == [
        "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "ReLU", "Dropout", "Linear"
    ]  # fmt: skip
    code, text, err = run(capsys, "predict", model, root, "-o", out, "--probabilities", *NUMPY)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0 and list(rows[0]) == [
        "file", "prediction", "probability_left", "probability_right"
    ]  # fmt: skip
    right = np.mean([row["file"].startswith(row["prediction"] + "/") for row in rows])
    assert right > 0.9 and err == f"accuracy {right:.3f} (60 samples)\n"
    flat = folder(tmp_path / "new", channels, classes=False)
    code, text, err = run(capsys, "predict", model, flat, *NUMPY)
    alike = {row["file"].split("/")[1]: row["prediction"] for row in rows}
    assert code == 0 and err == ""
    assert dict(csv.reader(text.splitlines()[1:])) == alike
    code, text, err = run(capsys, "predict", model, flat / "07.png", *NUMPY)
    assert (code, text) == (0, f"file,prediction\n07.png,{alike['07.png']}\n")
    code, text, _ = run(capsys, "show", model)
    assert f"classification of 'folder' from images of {channels} x 6 x 8" in text


def test_images_are_resized_for_the_model(capsys: Any, tmp_path: Path) -> None:
    root, model = folder(tmp_path / "sides", 3), tmp_path / "m.safetensors"
    large = tmp_path / "large.jpg"
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(large)
    Image.open(root / "left" / sorted(p.name for p in (root / "left").iterdir())[0]).resize(
        (30, 20)
    ).save(root / "left" / "another.png")
    fails(capsys, 3, "images must have one size", "train", root, *QUIET)
    code, *_ = run(
        capsys, "train", root, "--image-size", "8,12", "--max-steps", 2, "--save", model, *QUIET
    )
    assert code == 0
    assert load_model(model).extra["encoding"]["image"] == [3, 8, 12]
    code, text, _ = run(capsys, "predict", model, large, *NUMPY)
    assert code == 0 and text.startswith("file,prediction\nlarge.jpg,")


def test_an_mlp_of_images_and_a_resumed_run(capsys: Any, tmp_path: Path) -> None:
    root, model, state = folder(tmp_path / "sides"), tmp_path / "m", tmp_path / "run"
    code, *_ = run(
        capsys, "train", root, "--model", "mlp", "--max-steps", 2, "--save", model, *QUIET
    )
    assert code == 0
    layers = load_model(model).model
    assert isinstance(layers[0], nn.Flatten) and layers[1].weight.shape == (128, 144)
    line = ("train", root, "--epochs", 2, "--resume", state, *QUIET)
    code, whole, _ = run(capsys, *line[:-1], "--save", tmp_path / "whole")
    state.unlink()
    run(capsys, *line, "--max-steps", 1)
    code, out, _ = run(capsys, *line, "--save", tmp_path / "again")
    assert code == 0 and out == whole
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
    fails(capsys, 4, "--channels 16,32; this call has --channels 4", *line, "--channels", 4)
    fails(capsys, 4, "--model cnn", *line, "--model", "mlp")


def test_what_does_not_fit_is_refused(capsys: Any, tmp_path: Path) -> None:
    X, y = pictures(3)
    data, model = tmp_path / "images.npz", tmp_path / "m.safetensors"
    (tmp_path / "some.csv").write_text("a,y\n1,2\n")
    cnn = ("--model", "cnn", *QUIET)
    fails(
        capsys,
        2,
        "--model cnn is for images",
        "train",
        tmp_path / "some.csv",
        "--target",
        "y",
        *cnn,
    )
    np.savez(data, X=X.transpose(0, 2, 3, 1), y=y)
    fails(capsys, 3, "with the channels last", "train", data, *cnn)
    np.savez(data, X=X.reshape(60, -1), y=y)
    fails(capsys, 3, "expected images (samples, channels, height, width)", "train", data, *cnn)
    np.savez(data, X=X, y=y)
    fails(
        capsys,
        2,
        "images of 6 x 8 pixels are too small",
        "train",
        data,
        "--channels",
        "4,4,4",
        *cnn,
    )
    fails(capsys, 2, "--image-size is for folders", "train", data, "--image-size", 4, *cnn)
    fails(capsys, 2, "is no image size", "train", data, "--image-size", "4,5,6", *cnn)
    root = folder(tmp_path / "sides")
    fails(capsys, 2, "leave out --target", "train", root, "--target", "y", *QUIET)
    flat = folder(tmp_path / "flat", classes=False)
    fails(capsys, 3, "one subfolder of images for each class", "train", flat, *QUIET)
    fails(capsys, 3, "is not there", "train", tmp_path / "no.png", *QUIET)
    assert run(capsys, "train", data, "--max-steps", 1, "--save", model, *cnn)[0] == 0
    np.savez(data, X=X[:, :, :5], y=y)
    fails(capsys, 3, "X has images of 3 x 5 x 8, the model takes 3 x 6 x 8", "predict", model, data)
    fails(capsys, 3, "trained on arrays", "predict", model, tmp_path / "some.csv")
    assert run(capsys, "train", "digits", "--max-steps", 1, "--save", model, *QUIET)[0] == 0
    fails(capsys, 3, "was not trained on images", "predict", model, root)
