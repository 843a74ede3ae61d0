"""Images: files to arrays, channels standardised, arrays (N, C, H, W) through Trainer and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import Standardizer, read_images
from gpubp.errors import DataError, MissingExtraError, ShapeError
from gpubp.train import Trainer, load_model, save_model

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)


def saved(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def folder(root: Path, pixels: Any = COLOURS) -> Path:
    for name, image in zip(("cat/b.png", "cat/a.png", "dog/c.PNG"), pixels):
        saved(root / name, image)
    return root


def test_a_subfolder_is_a_class(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    (root / "cat" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    found = read_images(root)
    assert found.pixels.dtype == np.uint8 and found.labels == ["cat", "cat", "dog"]
    assert [f.name for f in found.files] == ["a.png", "b.png", "c.PNG"]
    assert found.others == 1
    np.testing.assert_array_equal(found.pixels, COLOURS[[1, 0, 2]].transpose(0, 3, 1, 2))


def test_grey_and_coloured_images(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
    one = saved(tmp_path / "one" / "a.png", grey)
    np.testing.assert_array_equal(read_images(one).pixels, grey[None, None])
    assert read_images(one).labels is None
    saved(tmp_path / "one" / "b.png", COLOURS[0])
    found = read_images(tmp_path / "one")
    assert found.labels is None and found.pixels.shape == (2, 3, 5, 7)
    np.testing.assert_array_equal(found.pixels[0], np.stack([grey] * 3))
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R 601
    shades = read_images(tmp_path / "one", channels=1).pixels
    np.testing.assert_allclose(shades[1, 0], COLOURS[0] @ weights, atol=1)
    saved(tmp_path / "two" / "a.png", COLOURS[0], "RGBA")
    saved(tmp_path / "two" / "b.png", grey > 99)  # one bit a pixel
    pixels = read_images(tmp_path / "two").pixels
    np.testing.assert_array_equal(pixels[0], COLOURS[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(pixels[1, 0], np.where(grey > 99, 255, 0))


def test_images_are_resized_on_request_alone(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", np.full((4, 8), 200, np.uint8))
    saved(tmp_path / "b.jpg", np.full((6, 6), 200, np.uint8))
    with pytest.raises(DataError, match=r"b\.jpg has 6 x 6 pixels, .*a\.png has 4 x 8.*one size"):
        read_images(tmp_path)
    found = read_images(tmp_path, (2, 3)).pixels
    assert found.shape == (2, 1, 2, 3)
    np.testing.assert_allclose(found, 200, atol=2)


def test_photographs_are_turned_as_their_camera_says(tmp_path: Path) -> None:
    pixels = np.repeat(np.repeat(np.eye(2, 3, dtype=np.uint8) * 255, 8, 0), 8, 1)
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn, clockwise
    path = saved(tmp_path / "a.jpg", pixels, exif=exif, quality=100)
    found = read_images(path).pixels[0, 0]
    assert found.shape == (24, 16)
    np.testing.assert_allclose(found, np.rot90(pixels, -1), atol=12)


def broken(root: Path) -> Path:
    path = folder(root) / "cat" / "b.png"
    path.write_bytes(path.read_bytes()[:60])
    return root


def deep(root: Path) -> Path:
    return saved(folder(root) / "cat" / "z.png", np.zeros((5, 7), np.uint16)).parent.parent


def mixed(root: Path) -> Path:
    return saved(folder(root) / "z.png", COLOURS[0]).parent


def vacant(root: Path) -> Path:
    (folder(root) / "empty").mkdir()
    return root


def bare(root: Path) -> Path:
    root.mkdir()
    return root


def text(root: Path) -> Path:
    (folder(root) / "dog" / "d.jpeg").write_text("no image")
    return root


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken, r"b\.png is no image, or it is damaged"),
        (deep, r"z\.png has pixels of mode 'I;16', more than 8 bits"),
        (mixed, r"holds images \(z\.png\) beside folders \(cat\)"),
        (vacant, r"empty holds no PNG or JPEG files"),
        (bare, "holds no PNG or JPEG files, and no folders"),
        (text, r"d\.jpeg is no image"),
        (lambda root: root / "nowhere", "nowhere is not there"),
    ],
)
def test_files_that_cannot_be_used(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_images(make(tmp_path / "pets"))


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r'pip install "gpubp\[images\]"'):
        read_images(folder_of_nothing(tmp_path))


def folder_of_nothing(root: Path) -> Path:
    return root


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_channels_are_standardised(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpubp.data import scaling

    monkeypatch.setattr(scaling, "PART", 4)
    X = RNG.integers(0, 256, (11, 3, 4, 5)).astype(dtype)
    X[:, 2] = 7  # is only centred
    found = Standardizer.fit(X)
    wide = X.astype(np.float64)
    np.testing.assert_allclose(found.mean, wide.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(found.std[:2], wide.std(axis=(0, 2, 3))[:2], rtol=1e-13)
    assert found.std[2] == 1.0
    scaled = found.transform(X)
    assert scaled.shape == X.shape
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[:, :2].std(axis=(0, 2, 3)), 1, rtol=1e-12)
    np.testing.assert_allclose(found.inverse(scaled), wide, rtol=1e-12, atol=1e-12)
    again = Standardizer.from_dict(found.to_dict())
    np.testing.assert_array_equal(again.transform(X), scaled)
    for wrong in (X[:, :2], X[0, 0, 0]):
        with pytest.raises(ShapeError, match="expected"):
            found.transform(wrong)


def pictures(samples: int = 60) -> tuple[Any, Any]:
    """Where a bright square stands: one of four corners."""
    y = RNG.integers(0, 4, samples)
    X = RNG.normal(0, 0.3, (samples, 2, 8, 8)).astype(np.float32)
    for i, corner in enumerate(y):
        row, column = 4 * (corner // 2), 4 * (corner % 2)
        X[i, :, row : row + 3, column : column + 3] += 1.5
    return X, y


def network() -> Any:
    gp.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


def trainer(backend: str = "numpy") -> Any:
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, backend=backend, seed=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_images_train(backend: str) -> None:
    X, y = pictures()
    made = trainer(backend)
    history = made.fit(X, y, epochs=8, batch_size=16, validation_split=0.2, verbose=False)
    assert history["val_accuracy"][-1] > 0.8
    outputs = made.predict(X)
    assert outputs.shape == (60, 4)
    found = made.evaluate(X, y, ["f1_macro"])
    assert found["accuracy"] == np.mean(outputs.argmax(1) == y)


def test_mapped_images_and_streams_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpubp.data import sources

    X, y = pictures()
    options = {"epochs": 2, "shuffle": False, "verbose": False}
    expected = trainer().fit(X, y, batch_size=16, **options).records
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 20 * X[0].nbytes)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert trainer().fit(mapped, y, batch_size=16, **options).records == expected
    batches = [(X[i : i + 16], y[i : i + 16]) for i in range(0, 60, 16)]
    assert trainer().fit(batches, **options).records == expected


def test_checkpoints_and_model_files_of_images(tmp_path: Path) -> None:
    X, y = pictures()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "verbose": False}
    whole = trainer()
    whole.fit(X, y, checkpoint=tmp_path / "whole", **options)
    trainer().fit(X, y, checkpoint=tmp_path / "run", max_steps=3, **options)
    resumed = trainer()
    resumed.fit(X, y, checkpoint=tmp_path / "run", resume=tmp_path / "run", **options)
    assert resumed.history.records == whole.history.records
    save_model(tmp_path / "model", whole.model)
    for path in ("model", "whole", "run"):
        found = load_model(tmp_path / path).model
        assert repr(found) == repr(whole.model)
        np.testing.assert_array_equal(found(X), whole.predict(X))


LAYERS: list[Any] = [
    lambda: nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 1), groups=2),
    lambda: nn.Conv2d(4, 2, 3, padding="same", padding_mode="reflect", bias=False),
    lambda: nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
    lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, output_padding=1),
    lambda: nn.BatchNorm2d(4, eps=1e-3, momentum=None, affine=False),
    lambda: nn.BatchNorm2d(4, track_running_stats=False),
    lambda: nn.GroupNorm(2, 4),
    lambda: nn.InstanceNorm2d(4, affine=True),
    lambda: nn.Dropout2d(0.3),
    lambda: nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
    lambda: nn.MaxPool2d((2, 3), dilation=2),
    lambda: nn.AvgPool2d(2, count_include_pad=False, divisor_override=3),
    lambda: nn.AdaptiveAvgPool2d((None, 2)),
    lambda: nn.AdaptiveMaxPool2d(1),
]


@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_files_describe_layers_of_images(number: int, tmp_path: Path) -> None:
    layer = LAYERS[number]()
    save_model(tmp_path / "m", layer)
    found = load_model(tmp_path / "m").model
    assert repr(found) == repr(layer)
    X = RNG.normal(size=(3, 4, 9, 8)).astype(np.float32)
    np.testing.assert_array_equal(found(X), layer.eval()(X))
