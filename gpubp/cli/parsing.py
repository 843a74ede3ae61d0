"""Texts of options as values; argparse says which option was wrong."""

from __future__ import annotations

import argparse


def names(text: str) -> list[str]:
    """`a,b`: names of columns or metrics."""
    return [name.strip() for name in text.split(",") if name.strip()]


def sizes(text: str) -> list[int]:
    """`128,64`; "none" or nothing: no hidden layer."""
    if text.strip().lower() in ("", "none"):
        return []
    try:
        found = [int(size) for size in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no layer sizes: expected whole numbers above 0 such as 128,64; --hidden "
            "none is for no hidden layer"
        )
    return found


def image_size(text: str) -> list[int]:
    """`64,48`: height and width; `64`: both."""
    found = sizes(text)
    if len(found) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is no image size: expected 64,48 or 64")
    return [found[0], found[-1]]


def share(text: str) -> float:
    """`0.2`: a share of the rows."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not a share in [0, 1)")
    return share
