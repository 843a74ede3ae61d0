"""How good detections are: mean average precision.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge" (2010), with the area under
the whole curve, as from VOC 2010 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, shown
from gpubp.data.boxes import box_iou, checked_boxes
from gpubp.errors import DataError

Found = tuple[ArrayLike, ArrayLike, ArrayLike]
Wanted = tuple[ArrayLike, ArrayLike]


@checked
def mean_average_precision(
    predictions: Sequence[Found], targets: Sequence[Wanted], iou_threshold: float = 0.5
) -> float:
    """Mean average precision: for each class the area under its curve of precision over recall.

    From the best score on, a detection is right if its box overlaps one of its class in its image
    that none has found before: the one which it overlaps most, by at least `iou_threshold`.
    Precision at a recall is the best one at that recall or a larger one.

    Args:
        predictions: for each image (boxes (N, 4), scores (N,), classes (N,)); boxes as (left, top,
            right, bottom).
        targets: for each image (boxes (M, 4), classes (M,)).
        iou_threshold: how far boxes must overlap, as intersection over union.

    Returns:
        The mean over the classes that occur in the targets; NaN where there are none.

    Raises:
        DataError: lengths that differ, numbers that are not finite, or an image whose parts are
            not three and two arrays.
        ShapeError: other shapes.
    """
    if len(predictions) != len(targets):
        raise DataError(
            f"{len(predictions)} images of predictions and {len(targets)} of targets; expected one "
            "of each an image."
        )
    for images, parts, name in ((predictions, 3, "predictions"), (targets, 2, "targets")):
        for i, image in enumerate(images):
            if not isinstance(image, (tuple, list)) or len(image) != parts:
                raise DataError(f"{name}[{i}] is {shown(image)}, expected a tuple of {parts}.")
    rows = [_judged(p, t, iou_threshold) for p, t in zip(predictions, targets)]
    scores, right, classes = (
        np.concatenate([np.zeros(0), *(r[i] for r in rows)]) for i in range(3)
    )
    wanted = np.concatenate([np.zeros(0), *(np.ravel(labels) for _, labels in targets)])
    of_classes = [
        _area(scores[classes == c], right[classes == c], int(np.sum(wanted == c)))
        for c in np.unique(wanted)
    ]
    return float(np.mean(of_classes)) if of_classes else float("nan")


def _judged(found: Found, wanted: Wanted, threshold: float) -> Any:
    """Scores, whether each detection is right (0 or 1), and classes of one image."""
    boxes, scores = checked_boxes(found[0], found[1])
    classes, labels = np.asarray(found[2]).ravel(), np.asarray(wanted[1]).ravel()
    true, _ = checked_boxes(wanted[0], np.zeros(len(labels)))
    if len(classes) != len(boxes):
        raise DataError(f"{len(boxes)} boxes and {len(classes)} classes; expected one a box.")
    right, free = np.zeros(len(boxes)), np.ones(len(labels), bool)
    if len(boxes) and len(labels):
        overlap = np.asarray(box_iou(boxes, true)) * (classes[:, None] == labels)
        for i in np.argsort(-scores, kind="stable"):
            best = int(np.argmax(overlap[i]))
            right[i] = free[best] and overlap[i, best] >= threshold
            free[best] &= not right[i]
    return scores, right, classes


def _area(scores: NDArray[Any], right: NDArray[Any], count: int) -> float:
    """The area under the curve of one class that has `count` objects."""
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    return float(np.sum(np.diff(hits, prepend=0) * best) / count)
