"""Boxes in images: their formats, how far they overlap, and which of them to keep.

Names and arguments are those of torchvision.ops. A box is four numbers, (left, top, right, bottom)
unless a format says otherwise, with left <= right and top <= bottom, in any unit. `box_convert`,
`box_area` and `box_iou` are made of `gpubp.ops`: in a traced function they are part of the program,
with gradients. How many boxes are kept depends on their values, so `nms` and `batched_nms` take
NumPy's arrays alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.core.interop import as_numpy
from gpubp.data.checks import check_finite, check_numbers
from gpubp.errors import DataError, ShapeError, unknown_name
from gpubp.ops.spec import promote

FORMATS = ("xyxy", "xywh", "cxcywh")
Indices = NDArray[np.int64]


def _boxes(name: str, *arrays: Any) -> list[Any]:
    """Arrays (..., 4) of one floating dtype. Raises ShapeError for others."""
    found: list[Any] = promote(*arrays, floating=True)
    for array in found:
        if not array.shape or array.shape[-1] != 4:
            raise ShapeError(f"{name}: expected boxes (..., 4), got {describe(array)}.")
    return found


@checked
def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> Any:
    """Boxes in another format.

    Args:
        boxes: (..., 4).
        in_fmt, out_fmt: "xyxy" (two corners), "xywh" (left, top, width, height) or "cxcywh" (the
            middle, width, height).

    Returns:
        (..., 4).

    Raises:
        DataError: a format of another name.
        ShapeError: other shapes.
    """
    for fmt in (in_fmt, out_fmt):
        if fmt not in FORMATS:
            raise unknown_name("format of boxes", fmt, FORMATS)
    (boxes,) = _boxes("box_convert", boxes)
    if in_fmt == out_fmt:
        return boxes
    first, second = boxes[..., :2], boxes[..., 2:]
    if in_fmt == "xyxy":
        low, size = first, second - first
    else:
        low, size = first - 0.5 * second if in_fmt == "cxcywh" else first, second
    made = {
        "xyxy": lambda: (low, low + size),
        "xywh": lambda: (low, size),
        "cxcywh": lambda: (low + 0.5 * size, size),
    }[out_fmt]()
    return ops.concat(made, axis=-1)


def box_area(boxes: Any) -> Any:
    """Width times height of boxes (..., 4); returns (...). Raises ShapeError for other shapes."""
    (boxes,) = _boxes("box_area", boxes)
    size = boxes[..., 2:] - boxes[..., :2]
    return size[..., 0] * size[..., 1]


def box_iou(boxes1: Any, boxes2: Any) -> Any:
    """Intersection over union of each box of one set with each of another (Jaccard's index).

    Args:
        boxes1, boxes2: (N, 4) and (M, 4).

    Returns:
        (N, M), from 0 (apart) to 1 (the same); NaN for two boxes without area.

    Raises:
        ShapeError: other shapes.
    """
    one, two = _boxes("box_iou", boxes1, boxes2)
    if len(one.shape) != 2 or len(two.shape) != 2:
        raise ShapeError(
            f"box_iou: expected boxes (N, 4) and (M, 4), got {describe(one)} and {describe(two)}."
        )
    one, two = ops.expand_dims(one, 1), ops.expand_dims(two, 0)
    low = ops.maximum(one[..., :2], two[..., :2])
    size = ops.maximum(ops.minimum(one[..., 2:], two[..., 2:]) - low, 0.0)
    shared = size[..., 0] * size[..., 1]
    return shared / (box_area(one) + box_area(two) - shared)


def nms(boxes: ArrayLike, scores: ArrayLike, iou_threshold: float) -> Indices:
    """Non-maximum suppression: from the best score on, keep what overlaps nothing kept before.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: boxes whose intersection over union with a kept one is larger go.

    Returns:
        Which boxes are kept, int64 (K,), the best score first; of equal scores the first box first.

    Raises:
        DataError: numbers that are not finite, lengths that differ, or a threshold out of [0, 1].
        ShapeError: other shapes.
    """
    return batched_nms(boxes, scores, None, iou_threshold)


@checked
def batched_nms(
    boxes: ArrayLike, scores: ArrayLike, idxs: ArrayLike | None, iou_threshold: float
) -> Indices:
    """`nms` for each group (a class, an image) by itself: boxes of two groups never meet.

    Args:
        boxes: (N, 4).
        scores: (N,).
        idxs: the group of each box, (N,); None: one for all.
        iou_threshold: as in `nms`.

    Returns:
        Which boxes are kept, int64 (K,), the best score first; of equal scores the first box first.

    Raises:
        DataError: numbers that are not finite, lengths that differ, or a threshold out of [0, 1].
        ShapeError: other shapes.
    """
    boxes, scores = checked_boxes(boxes, scores)
    if not 0.0 <= iou_threshold <= 1.0:
        raise DataError(f"iou_threshold is {iou_threshold}, expected a number in [0, 1].")
    groups = np.zeros(len(boxes)) if idxs is None else as_numpy(idxs, "idxs")
    if groups.shape != scores.shape:
        raise DataError(
            f"batched_nms: idxs {list(groups.shape)} for scores {list(scores.shape)}; expected "
            "one group a box."
        )
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        with np.errstate(invalid="ignore"):  # boxes without area overlap nothing: NaN
            overlap = np.asarray(box_iou(boxes[best][None], boxes[order]))[0]
        order = order[~((overlap > iou_threshold) & (groups[order] == groups[best]))]
    return np.array(kept, np.int64)


def checked_boxes(boxes: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Finite boxes (N, 4) and as many scores (N,), as float64.

    Raises:
        DataError: numbers that are not finite, lengths that differ, or what are no real numbers.
        ShapeError: other shapes.
    """
    given = as_numpy(boxes, "boxes"), as_numpy(scores, "scores")
    for array, name in zip(given, ("boxes", "scores")):
        check_numbers(array, name)
    found, each = (array.astype(np.float64) for array in given)
    if found.size == 0 and each.size == 0:
        return np.zeros((0, 4)), np.zeros(0)
    if found.ndim != 2 or found.shape[1] != 4 or each.ndim != 1:
        raise ShapeError(
            f"expected boxes (N, 4) and scores (N,), got {list(found.shape)} and "
            f"{list(each.shape)}."
        )
    if len(found) != len(each):
        raise DataError(f"{len(found)} boxes and {len(each)} scores; expected one score a box.")
    check_finite(found, "boxes")
    check_finite(each, "scores")
    return found, each
