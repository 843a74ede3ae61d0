"""Random changes of images: what they can give, how often, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from registered import MAKERS, with_workers
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn
from gpubp.errors import ArgumentError, DataError, GpubpError, ShapeError

RNG = np.random.default_rng(5)
IMAGES = RNG.standard_normal((64, 3, 5, 6)).astype(np.float32)

LAYERS: dict[str, Any] = {
    "horizontal": nn.RandomHorizontalFlip,
    "vertical": lambda: nn.RandomVerticalFlip(0.3),
    "crop": lambda: nn.RandomCrop((5, 6), 2),
    "reflecting crop": lambda: nn.RandomCrop((3, 8), (1, 2, 3, 0), padding_mode="reflect"),
    "shift": lambda: nn.RandomShift((1, 3), 0.5),
    "rotation": lambda: nn.RandomRotation(30.0, "bilinear"),
    "affine": lambda: nn.RandomAffine((10.0, 40.0), (0.2, 0.4), (0.5, 2.0), 10.0),
}


def _by_seed(call: Any, seed: int = 3) -> Any:
    gp.manual_seed(seed)
    return np.asarray(call(IMAGES))


@pytest.mark.parametrize("name", list(LAYERS))
def test_one_seed_gives_the_same_bits_everywhere(name: str) -> None:
    """At once, compiled, with any workers; only sines and cosines have other last digits."""
    layer = LAYERS[name]()
    expected = _by_seed(layer)
    assert not np.array_equal(expected, _by_seed(layer, 4))
    for label, make in {**MAKERS, **with_workers(2, 3)}.items():
        found = _by_seed(gp.compile(layer, backend=make()))
        if name in ("rotation", "affine"):
            away = np.abs(found - expected) > 1e-4
            assert away.mean() < 0.01, label
        else:
            assert_same(found, expected, label)


@pytest.mark.parametrize("name", list(LAYERS))
def test_nothing_is_changed_in_eval_mode(name: str) -> None:
    layer = LAYERS[name]().eval()
    expected = IMAGES
    if name == "reflecting crop":  # the middle of what is padded
        wide = np.pad(IMAGES, ((0, 0), (0, 0), (2, 0), (1, 3)), "reflect")
        expected = wide[:, :, 2:5, 1:9]
    assert_same(layer(IMAGES), expected)
    assert_same(gp.compile(layer, backend="numpy")(IMAGES), expected)


@pytest.mark.parametrize("axis", [2, 3])
def test_each_image_is_flipped_or_not(axis: int) -> None:
    kinds = {2: nn.RandomVerticalFlip, 3: nn.RandomHorizontalFlip}
    found, other = _by_seed(kinds[axis](0.3)), np.flip(IMAGES, axis)
    flipped = [np.array_equal(a, b) for a, b in zip(found, other, strict=True)]
    kept = [np.array_equal(a, b) for a, b in zip(found, IMAGES, strict=True)]
    assert np.logical_xor(flipped, kept).all()
    assert 8 <= sum(flipped) <= 32
    assert_same(_by_seed(kinds[axis](1.0)), other.copy())
    assert_same(_by_seed(kinds[axis](0.0)), IMAGES)


def _part_of(whole: Any, part: Any) -> tuple[int, int]:
    """Where a part stands in a padded image; an error if nowhere."""
    h, w = part.shape[1:]
    for i in range(whole.shape[1] - h + 1):
        for j in range(whole.shape[2] - w + 1):
            if np.array_equal(whole[:, i : i + h, j : j + w], part):
                return i, j
    raise AssertionError("no part of its image")


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_crops_are_parts_of_padded_images(mode: str) -> None:
    options: Any = {"constant_values": 0.5} if mode == "constant" else {}
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (2, 4), (1, 3)), mode, **options)
    found = _by_seed(nn.RandomCrop((7, 6), (1, 2, 3, 4), fill=0.5, padding_mode=mode))
    assert found.shape == (64, 3, 7, 6)
    places = {_part_of(a, b) for a, b in zip(wide, found, strict=True)}
    rows, columns = zip(*places, strict=True)
    assert (min(rows), max(rows), min(columns), max(columns)) == (0, 4, 0, 4)


def test_shifts_are_crops_of_the_images_own_size() -> None:
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (1, 1), (3, 3)))
    places = [_part_of(a, b) for a, b in zip(wide, _by_seed(nn.RandomShift((1, 3))), strict=True)]
    assert {i for i, _ in places} == {0, 1, 2}
    assert {j for _, j in places} == set(range(7))
    assert_same(_by_seed(nn.RandomShift(0)), IMAGES)


def test_small_images_are_padded_if_needed() -> None:
    found = _by_seed(nn.RandomCrop((9, 4), pad_if_needed=True))
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (4, 4), (0, 0)))
    assert len({_part_of(a, b) for a, b in zip(wide, found, strict=True)}) > 5


def test_quarter_turns_are_those_of_arrays() -> None:
    square = IMAGES[:, :, :, :5]
    turned = nn.RandomRotation((90.0, 90.0))(square)
    assert_close(turned, np.rot90(square, 1, (2, 3)).copy())
    clockwise = nn.RandomAffine((90.0, 90.0))(square)
    assert_close(clockwise, np.rot90(square, -1, (2, 3)).copy())


def test_translations_are_whole_pixels() -> None:
    layer = nn.RandomAffine(0.0, translate=(0.5, 0.4), fill=0.25)
    wide = np.pad(IMAGES, ((0, 0), (0, 0), (2, 2), (3, 3)), constant_values=0.25)
    found = _by_seed(layer)
    near = [
        min(np.abs(whole[:, i : i + 5, j : j + 6] - part).max() for i in range(5) for j in range(7))
        for whole, part in zip(wide, found, strict=True)
    ]
    assert max(near) < 1e-5


def _matrix(angle: float, move: Any, scale: float, shear: Any, center: Any) -> Any:
    """From places in images to places in results: T C R S C^-1, as torchvision's comment says."""
    turn, along_x, along_y = (math.radians(v) for v in (angle, *shear))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    first = np.array([[1.0, 0.0], [-math.tan(along_y), 1.0]])
    second = np.array([[1.0, -math.tan(along_x)], [0.0, 1.0]])
    linear = scale * rotation @ first @ second
    whole = np.eye(3)
    whole[:2, :2] = linear
    whole[:2, 2] = np.array(center) + move - linear @ center
    return whole


def test_maps_are_those_of_matrices() -> None:
    """One draw is known where least and most are one."""
    layer = nn.RandomAffine(
        (25.0, 25.0), None, (1.3, 1.3), (10.0, 10.0, -5.0, -5.0), "bilinear", center=(1.0, 4.0)
    )
    h, w = 7, 6
    x = RNG.standard_normal((1, 1, h, w))
    center = np.array([1.0 - w / 2, 4.0 - h / 2])
    back = np.linalg.inv(_matrix(25.0, np.zeros(2), 1.3, (10.0, -5.0), center))
    expected = np.zeros((h, w))
    wide = np.pad(x[0, 0], 1)
    for i in range(h):
        for j in range(w):
            place = back @ [j + 0.5 - w / 2, i + 0.5 - h / 2, 1.0]
            at_x, at_y = place[0] + w / 2 - 0.5, place[1] + h / 2 - 0.5
            if -1 < at_x < w and -1 < at_y < h:
                m, n = math.floor(at_y), math.floor(at_x)
                dy, dx = at_y - m, at_x - n
                four = wide[m + 1 : m + 3, n + 1 : n + 3]
                expected[i, j] = [1 - dy, dy] @ four @ [1 - dx, dx]
    np.testing.assert_allclose(layer(x)[0, 0], expected, 1e-5, 1e-5)


def test_angles_lie_in_their_range_and_differ() -> None:
    """A point right of the middle goes to where its image's angle sends it."""
    x = np.zeros((200, 1, 41, 41), np.float32)
    x[:, :, 20, 38:41] = 1.0
    gp.manual_seed(1)
    found = nn.RandomRotation((10.0, 50.0), "bilinear")(x)
    rows, columns = np.meshgrid(np.arange(41) - 20.0, np.arange(41) - 20.0, indexing="ij")
    total = found.sum((1, 2, 3))
    angles = np.degrees(
        np.arctan2(
            -(found[:, 0] * rows).sum((1, 2)) / total, (found[:, 0] * columns).sum((1, 2)) / total
        )
    )
    assert angles.min() > 9.0
    assert angles.max() < 51.0
    assert angles.std() > 8.0


def test_a_step_draws_anew_and_trains() -> None:
    model = nn.Sequential(
        nn.RandomShift(1), nn.RandomHorizontalFlip(), nn.Flatten(), nn.Linear(90, 2)
    )
    x, y = IMAGES, np.arange(64) % 2
    loss = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda a, b: loss(model(a), b), gp.optim.SGD(model.parameters(), 0.0), backend="numba"
    )
    gp.manual_seed(0)
    first = [float(step(x, y)) for _ in range(4)]
    assert len(set(first)) == 4
    gp.manual_seed(0)
    assert [float(step(x, y)) for _ in range(4)] == first


def test_generators_of_their_own() -> None:
    layer = nn.RandomShift(2, generator=gp.Generator(7))
    first = layer(IMAGES)
    layer.generator.manual_seed(7)
    gp.manual_seed(99)
    assert_same(layer(IMAGES), first)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: nn.RandomHorizontalFlip(1.5), DataError, "in \\[0, 1\\]"),
        (lambda: nn.RandomCrop(3.5), ArgumentError, "size"),
        (lambda: nn.RandomCrop(3, (1, 2, 3)), ArgumentError, "2 or 4"),
        (lambda: nn.RandomCrop(3, padding_mode="mirror"), ArgumentError, "symmetric"),
        (lambda: nn.RandomShift(-1), ArgumentError, "at least 0"),
        (lambda: nn.RandomRotation(-10.0), DataError, "at least 0"),
        (lambda: nn.RandomRotation(10.0, expand=True), DataError, "ZeroPad2d"),
        (lambda: nn.RandomRotation("a"), ArgumentError, "finite numbers"),
        (lambda: nn.RandomAffine(0.0, (0.1, 2.0)), DataError, "translate"),
        (lambda: nn.RandomAffine(0.0, None, (0.0, 1.0)), DataError, "positive"),
        (lambda: nn.RandomAffine(0.0, interpolation="cubic"), ArgumentError, "bilinear"),
        (lambda: nn.RandomCrop(7)(IMAGES), ShapeError, "does not fit"),
        (lambda: nn.RandomShift((5, 0), padding_mode="reflect")(IMAGES), ShapeError, "reflect"),
        (lambda: nn.RandomCrop(3)(IMAGES[0]), ShapeError, "N, C, H, W"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, error: type[GpubpError], says: str) -> None:
    with pytest.raises(error, match=says):
        call()
