"""Boxes: formats, overlaps, non-maximum suppression, mean average precision."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp as gp
from gpubp.data import batched_nms, box_area, box_convert, box_iou, nms
from gpubp.errors import ArgumentError, DataError, GpubpError, ShapeError
from gpubp.train import mean_average_precision

BOXES = np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [5.0, 5.0, 6.0, 7.0]])


def random_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 10, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.5, 5, (count, 2))], axis=1)


def test_overlaps_worked_by_hand():
    found = box_iou(BOXES, BOXES[:2])
    np.testing.assert_allclose(found, [[1, 1 / 7], [1 / 7, 1], [0, 0]])
    np.testing.assert_array_equal(box_area(BOXES), [4, 4, 2])


def test_overlaps_of_cells_counted_on_a_grid():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 8, (6, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 8, (6, 2))], axis=1)
    grid = np.zeros((6, 16, 16), bool)
    for cells, (left, top, right, bottom) in zip(grid, boxes):
        cells[top:bottom, left:right] = True
    both = (grid[:, None] & grid).sum((2, 3))
    either = (grid[:, None] | grid).sum((2, 3))
    np.testing.assert_allclose(box_iou(boxes, boxes), both / either)


@pytest.mark.parametrize("out", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("given", ["xyxy", "xywh", "cxcywh"])
def test_formats_lead_to_each_other(given, out):
    forms = {
        "xyxy": BOXES,
        "xywh": [[0, 0, 2, 2], [1, 1, 2, 2], [5, 5, 1, 2]],
        "cxcywh": [[1, 1, 2, 2], [2, 2, 2, 2], [5.5, 6, 1, 2]],
    }
    found = box_convert(np.array(forms[given], float), given, out)
    np.testing.assert_array_equal(found, forms[out])


def test_overlaps_are_part_of_a_program_and_have_gradients():
    one, two = random_boxes(3, 0), random_boxes(4, 1) * 0.7
    np.testing.assert_allclose(gp.compile(box_iou)(one, two), box_iou(one, two))
    slope = gp.grad(lambda b: gp.ops.sum(box_iou(b, two)))(one)
    nudge = np.zeros_like(one)
    nudge[1, 2] = 1e-6
    wide, narrow = (np.sum(box_iou(one + s * nudge, two)) for s in (1, -1))
    np.testing.assert_allclose(slope[1, 2], (wide - narrow) / 2e-6, rtol=1e-5, atol=1e-8)


def test_of_boxes_that_overlap_the_best_is_kept():
    np.testing.assert_array_equal(nms(BOXES, [0.5, 0.9, 0.1], 0.1), [1, 2])
    np.testing.assert_array_equal(nms(BOXES, [0.5, 0.9, 0.1], 0.2), [1, 0, 2])
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).shape == (0,)


def test_a_box_that_went_suppresses_nothing():
    chain = np.array([[0.0, 0, 4, 1], [1, 0, 5, 1], [2, 0, 6, 1]])  # each overlaps the next by 0.6
    np.testing.assert_array_equal(nms(chain, [3, 2, 1], 0.5), [0, 2])


def test_equal_scores_keep_the_order_of_the_boxes():
    np.testing.assert_array_equal(nms(BOXES, np.ones(3), 0.1), [0, 2])


def test_what_is_kept_overlaps_less_and_what_goes_overlaps_a_better_one():
    boxes, scores = random_boxes(60, 2), np.random.default_rng(3).uniform(size=60)
    kept = nms(boxes, scores, 0.3)
    overlap = np.asarray(box_iou(boxes, boxes))
    assert np.all(overlap[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] <= 0.3)
    for gone in set(range(60)) - set(kept.tolist()):
        assert any(overlap[gone, k] > 0.3 and scores[k] >= scores[gone] for k in kept)


def test_groups_do_not_meet():
    boxes, scores = random_boxes(40, 4), np.random.default_rng(5).uniform(size=40)
    groups = np.arange(40) % 3
    kept = batched_nms(boxes, scores, groups, 0.2)
    for group in range(3):
        rows = np.flatnonzero(groups == group)
        alone = rows[nms(boxes[rows], scores[rows], 0.2)]
        np.testing.assert_array_equal(kept[groups[kept] == group], alone)
    assert np.all(np.diff(scores[kept]) <= 0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: box_iou(BOXES[:, :3], BOXES), ShapeError, r"\(\.\.\., 4\), got float64\[3, 3\]"),
        (lambda: box_iou(BOXES[0], BOXES), ShapeError, r"\(N, 4\) and \(M, 4\)"),
        (lambda: box_convert(BOXES, "xyxy", "yxyx"), GpubpError, "yxyx"),
        (lambda: nms(BOXES, np.ones(2), 0.5), DataError, "3 boxes and 2 scores"),
        (lambda: nms(BOXES, np.full(3, np.nan), 0.5), DataError, "scores"),
        (lambda: nms(BOXES[0], np.ones(3), 0.5), ShapeError, r"boxes \(N, 4\)"),
        (lambda: batched_nms(BOXES, np.ones(3), [0, 1], 0.5), DataError, "one group a box"),
        (lambda: mean_average_precision([], [(BOXES, [0, 0, 0])]), DataError, "0 images"),
        (lambda: mean_average_precision([1], [2]), DataError, r"predictions\[0\] is 1"),
        (lambda: nms(BOXES + 1j, np.ones(3), 0.5), DataError, "complex128"),
        (lambda: nms([[1, 2], [3]], np.ones(2), 0.5), ArgumentError, "boxes, a list"),
        (lambda: nms(BOXES, np.ones(3), np.nan), DataError, "iou_threshold is nan"),
    ],
)
def test_what_cannot_be_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_right_detections_have_a_mean_average_precision_of_one():
    images = [(random_boxes(5, s), np.arange(5) % 2) for s in range(3)]
    found = [(boxes, np.linspace(1, 0, 5), labels) for boxes, labels in images]
    assert mean_average_precision(found, images) == 1.0


def test_average_precision_worked_by_hand():
    """Right, wrong, right of two objects: precisions 1 and 2/3 at recalls 1/2 and 1."""
    target = [(BOXES[[0, 2]], [7, 7])]
    boxes = BOXES[[0, 1, 2]]
    assert mean_average_precision([(boxes, [3, 2, 1], [7] * 3)], target) == pytest.approx(5 / 6)
    # A second detection of the same object is wrong, and so is one of another class.
    assert mean_average_precision([(boxes[[0, 0]], [2, 1], [7, 7])], target) == 0.5
    assert mean_average_precision([(boxes, [3, 2, 1], [8, 7, 8])], target) == 0.0


def test_classes_count_alike_and_images_without_anything_count_what_is_found_there():
    nothing = (np.zeros((0, 4)), np.zeros(0))
    targets = [(BOXES, [0, 0, 1]), nothing]
    found = [(BOXES, [0.9, 0.8, 0.7], [0, 0, 1]), (BOXES[:1], [1.0], [1])]
    # Class 1: a wrong one first, then the right one.
    assert mean_average_precision(found, targets) == pytest.approx((1 + 0.5) / 2)
    assert np.isnan(mean_average_precision([(*nothing, np.zeros(0))], [nothing]))
