"""Folders of images: PNG and JPEG files to arrays (N, C, H, W), one subfolder a class.

Read by Pillow, which the extra `images` brings. Grey images have one channel, others three: red,
green and blue. Photographs are turned as their camera says (EXIF), as viewers show them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError, missing_extra

ENDINGS = (".png", ".jpg", ".jpeg")
_GREY = ("1", "L")
_COLOURS = ("P", "PA", "LA", "La", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


class Images(NamedTuple):
    """What was read.

    Attributes:
        pixels: uint8, (N, C, H, W).
        files: the files, in this order: by class, then by name.
        labels: for each the name of its subfolder; None if there are no subfolders.
        others: how many files were passed over, because of their endings.
    """

    pixels: NDArray[np.uint8]
    files: list[Path]
    labels: list[str] | None
    others: int


@checked
def read_images(
    path: str | os.PathLike[str],
    size: Sequence[int] | None = None,
    channels: int | None = None,
) -> Images:
    """Read a folder of images, or a single one.

    Args:
        path: of a folder with one subfolder of images a class, of a folder of images, or of a file.
        size: (height, width) to resize all to (bilinear); None: all must have one size.
        channels: 1 makes all grey, 3 all red, green and blue; None: 3 if any has colours.

    Raises:
        DataError: no images, files that are damaged or of more than 8 bits a channel, or images of
            different sizes; says which.
        MissingExtraError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401 - before any work
    except ImportError as error:
        raise missing_extra("Pillow", "images", "reading images") from error
    files, labels, others = _found(Path(path))
    arrays = [_read(file, size) for file in files]
    wanted = channels or (3 if any(a.ndim == 3 for a in arrays) else 1)
    pixels = [_with_channels(a, wanted) for a in arrays]
    for file, array in zip(files, pixels):
        if array.shape != pixels[0].shape:
            raise DataError(
                f"{file} has {array.shape[1]} x {array.shape[2]} pixels, {files[0]} has "
                f"{pixels[0].shape[1]} x {pixels[0].shape[2]} (height x width): images must have "
                "one size. Give one to resize all to (--image-size 64,64)."
            )
    return Images(np.stack(pixels), files, labels, others)


def _found(path: Path) -> tuple[list[Path], list[str] | None, int]:
    """(files, labels or None, how many others there are)."""
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path} is not there.")
        return [path], None, 0
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    folders, loose = [p for p in inside if p.is_dir()], [p for p in inside if not p.is_dir()]
    files = [p for p in loose if p.suffix.lower() in ENDINGS]
    others = len(loose) - len(files)
    if files and folders:
        raise DataError(
            f"{path} holds images ({files[0].name}) beside folders ({folders[0].name}): put each "
            "image into the folder of its class."
        )
    if files:
        return files, None, others
    labels: list[str] = []
    for folder in folders:
        every = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        images = [p for p in every if p.suffix.lower() in ENDINGS and not p.is_dir()]
        if not images:
            raise DataError(f"{folder} holds no PNG or JPEG files: remove it, or fill it.")
        files, labels = files + images, labels + [folder.name] * len(images)
        others += len(every) - len(images)
    if not files:
        raise DataError(f"{path} holds no PNG or JPEG files, and no folders of such.")
    return files, labels, others


def _read(file: Path, size: Sequence[int] | None) -> NDArray[np.uint8]:
    """(H, W) of a grey image, (H, W, 3) of another."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            mode = opened.mode
            if mode not in (*_GREY, *_COLOURS):
                raise DataError(
                    f"{file} has pixels of mode {mode!r}, more than 8 bits: convert it, or save "
                    "the numbers as an array in an NPZ file."
                )
            image: Any = ImageOps.exif_transpose(opened)
            image = image.convert("L" if mode in _GREY else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is no image, or it is damaged ({error}).") from error
    if size is not None:
        height, width = size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image, np.uint8)


def _with_channels(array: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """(channels, H, W); grey by the weights of ITU-R 601, as Pillow's convert."""
    if array.ndim == 2:
        return np.repeat(array[np.newaxis], channels, axis=0)
    if channels == 1:
        from PIL import Image

        return np.array(Image.fromarray(array).convert("L"), np.uint8)[np.newaxis]
    return np.ascontiguousarray(np.moveaxis(array, 2, 0))
