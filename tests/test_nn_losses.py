"""Losses: exactness far out, what is passed over, what is refused, in eager calls and programs."""

from __future__ import annotations

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import (
    DataError,
    DTypeError,
    GpubpError,
    IndexRangeError,
    ShapeError,
    UnknownNameError,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 2, 1, 0])
HALF = np.full((6, 4), 0.5, np.float32)
ONES = np.ones((6, 4), np.float32)
FAR = np.array([-1e4, -200.0, -40.0, 0.0, 40.0, 200.0, 1e4])


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_logit_losses_are_exact_far_out(target):
    t = np.full_like(FAR, target)
    expected = t * _softplus(-FAR) + (1 - t) * _softplus(FAR)
    np.testing.assert_allclose(nn.BCEWithLogitsLoss(reduction="none")(FAR, t), expected, 1e-14)
    each = nn.MultiLabelSoftMarginLoss(reduction="none")(FAR[:, None], t[:, None])
    np.testing.assert_allclose(each, expected, 1e-14)
    gradient = gp.grad(lambda x: nn.BCEWithLogitsLoss(reduction="sum")(x, t))(FAR)
    small = np.exp(-np.abs(FAR))
    up = np.where(FAR >= 0, 1, small) / (1 + small)  # sigmoid(x)
    down = np.where(FAR >= 0, small, 1) / (1 + small)  # sigmoid(-x)
    np.testing.assert_allclose(gradient, (1 - t) * up - t * down, 1e-14)


def test_soft_margin_is_exact_far_out():
    ones = np.ones_like(FAR)
    np.testing.assert_allclose(
        nn.SoftMarginLoss(reduction="none")(FAR, ones), _softplus(-FAR), 1e-14
    )


def test_bce_at_certainty_is_finite():
    p, t = np.array([0.0, 0.0, 1.0, 1.0, 1e-12]), np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    losses = nn.BCELoss(reduction="none")(p, t)
    np.testing.assert_allclose(losses, [0.0, 100.0, 100.0, 0.0, 1e-12], 1e-11)
    gradient = gp.grad(lambda x: nn.BCELoss(reduction="sum")(x, t))(p)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_labels_change_nothing(backend):
    """Ignoring rows equals leaving them out, for the loss and for the weights it trains."""
    keep = LABELS != 1
    results = []
    for x, y, ignore in ((LOGITS, LABELS, 1), (LOGITS[keep], LABELS[keep], None)):
        gp.manual_seed(0)
        model = nn.Linear(4, 4)
        loss = nn.CrossEntropyLoss([1.0, 2.0, 3.0, 4.0], ignore_index=ignore, label_smoothing=0.1)
        step = gp.compile_step(
            lambda x, y, m=model, f=loss: f(m(x), y),
            optim.SGD(model.parameters(), lr=0.5),
            backend=backend,
        )
        results.append((step(x, y), model.weight.numpy()))
    assert_close(results[0][0], results[1][0])
    assert_close(results[0][1], results[1][1])


def test_an_ignored_label_may_be_outside_of_the_classes():
    labels = np.where(LABELS == 1, -100, LABELS)
    loss = nn.CrossEntropyLoss(ignore_index=-100)
    assert_close(loss(LOGITS, labels), nn.CrossEntropyLoss(ignore_index=1)(LOGITS, LABELS))
    infinite = LOGITS.copy()
    infinite[labels == -100] = np.inf
    with np.errstate(invalid="ignore"):
        assert_close(loss(infinite, labels), loss(LOGITS, labels))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_all_labels_ignored_is_nan_in_the_mean_and_zero_in_the_sum(loss):
    labels = np.zeros(6, np.int64)
    with np.errstate(invalid="ignore"):
        assert np.isnan(loss(ignore_index=0)(LOGITS, labels))
    assert loss(ignore_index=0, reduction="sum")(LOGITS, labels) == 0


def test_one_hot_probabilities_equal_labels():
    hot = np.eye(4, dtype=np.float32)[LABELS]
    for smoothing in (0.0, 0.2):
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        assert_close(loss(LOGITS, hot), loss(LOGITS, LABELS))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss])
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 3.0, 4.0]])
def test_programs_refuse_labels_out_of_range(make, weight, backend):
    loss = make(weight=weight)
    call = gp.compile(lambda x, y: loss(x, y), backend=backend)
    call(LOGITS, LABELS)
    for bad in (4, -1):
        labels = LABELS.copy()
        labels[2] = bad
        with pytest.raises((IndexRangeError, DataError), match=f"{bad}"):
            call(LOGITS, labels)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_programs_refuse_labels_out_of_range_among_ignored_ones(make, backend):
    """Here the labels that are looked up are computed in the program."""
    loss = make(ignore_index=-100)
    call = gp.compile(lambda x, y: loss(x, y), backend=backend)
    labels = np.where(LABELS == 1, -100, LABELS)
    assert_close(call(LOGITS, labels), loss(LOGITS, labels))
    for bad in (4, -1):
        labels[3] = bad
        with pytest.raises((IndexRangeError, DataError)):
            call(LOGITS, labels)


def test_labels_may_be_int32():
    for loss in (nn.CrossEntropyLoss(ignore_index=1), nn.NLLLoss(), nn.MultiMarginLoss()):
        assert_close(loss(LOGITS, LABELS.astype(np.int32)), loss(LOGITS, LABELS))


def test_weights_do_not_change_the_dtype():
    weight = [1.0, 2.0, 3.0, 4.0]  # float64, as a list becomes
    for loss in (
        nn.CrossEntropyLoss(weight),
        nn.NLLLoss(weight),
        nn.MultiMarginLoss(weight=weight),
    ):
        assert loss(LOGITS, LABELS).dtype == np.float32
    for loss in (nn.BCELoss(weight), nn.BCEWithLogitsLoss(weight, pos_weight=weight)):
        assert loss(HALF, ONES).dtype == np.float32


def test_constant_weights_are_state():
    loss = nn.BCEWithLogitsLoss([1.0, 2.0], pos_weight=[3.0, 4.0])
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    assert list(loss.parameters()) == []
    assert nn.BCEWithLogitsLoss().state_dict() == {}


def test_zero_beta_is_the_absolute_error():
    assert_close(nn.SmoothL1Loss(beta=0)(LOGITS, HALF), nn.L1Loss()(LOGITS, HALF))


def test_batchmean_is_the_divergence():
    p, q = ops.softmax(LOGITS), ops.softmax(LOGITS[::-1])
    expected = np.sum(q * (np.log(q) - np.log(p))) / 6
    np.testing.assert_allclose(nn.KLDivLoss("batchmean")(np.log(p), q), expected, 1e-5)
    zero = np.array([[0.0, 1.0]])
    assert np.isfinite(nn.KLDivLoss("sum")(np.log([[0.5, 0.5]]), zero))


WRONG = {
    "reduction": (lambda: nn.HuberLoss("meen"), UnknownNameError, "Did you mean 'mean'"),
    "batchmean": (lambda: nn.L1Loss("batchmean"), UnknownNameError, "batchmean"),
    "batchmean of nothing": (
        lambda: nn.KLDivLoss("batchmean")(LOGITS[:0], HALF[:0]),
        ShapeError,
        "no samples",
    ),
    "delta": (lambda: nn.HuberLoss(delta=0), DataError, "above 0"),
    "beta": (lambda: nn.SmoothL1Loss(beta=-1), DataError, "at least 0"),
    "eps": (lambda: nn.PoissonNLLLoss(eps=0), DataError, "eps"),
    "margin": (lambda: nn.HingeEmbeddingLoss(np.nan), DataError, "margin"),
    "p": (lambda: nn.MultiMarginLoss(p=3), DataError, "1 or 2"),
    "smoothing": (lambda: nn.CrossEntropyLoss(label_smoothing=1.5), DataError, r"in \[0, 1\]"),
    "weight": (lambda: nn.CrossEntropyLoss([1.0, np.inf]), DataError, "finite"),
    "weight axes": (lambda: nn.NLLLoss([[1.0]]), ShapeError, "one number a class"),
    "weight size": (
        lambda: nn.CrossEntropyLoss([1.0, 2.0])(LOGITS, LABELS),
        ShapeError,
        r"\[2\] weights for 4 classes",
    ),
    "bce weight": (lambda: nn.BCELoss(np.ones(3))(HALF, ONES), ShapeError, "does not broadcast"),
    "bce input": (lambda: nn.BCELoss()(2 * ONES, ONES), DataError, r"holds 2.0 at index \(0, 0\)"),
    "bce target": (lambda: nn.BCELoss()(HALF, -ONES), DataError, "from 0 to 1"),
    "bce nan": (lambda: nn.BCELoss()(HALF * np.nan, ONES), DataError, "nan"),
    "logits target": (lambda: nn.BCEWithLogitsLoss()(LOGITS, 2 * ONES), DataError, "target holds"),
    "probabilities": (lambda: nn.CrossEntropyLoss()(LOGITS, 2 * ONES), DataError, "target holds"),
    "soft and ignore": (
        lambda: nn.CrossEntropyLoss(ignore_index=1)(LOGITS, HALF),
        DataError,
        "needs labels",
    ),
    "nll label": (lambda: nn.NLLLoss()(LOGITS, LABELS + 1), IndexRangeError, "4"),
    "float labels": (lambda: nn.NLLLoss()(LOGITS, LABELS + 0.5), DTypeError, "class indices"),
    "label shape": (lambda: nn.CrossEntropyLoss()(LOGITS, LABELS[:3]), ShapeError, r"\(N, C\)"),
    "int labels": (
        lambda: nn.CrossEntropyLoss()(LOGITS, ONES.astype(int)),
        ShapeError,
        r"\(N, C\)",
    ),
    "margin axes": (
        lambda: nn.MultiMarginLoss()(np.ones((2, 3, 4)), np.zeros((2, 4), int)),
        ShapeError,
        r"expected \(N, C\)",
    ),
    "hinge": (lambda: nn.HingeEmbeddingLoss()(LOGITS, 3 * ONES), DataError, "from -1 to 1"),
    "ranking": (lambda: nn.MarginRankingLoss()(LOGITS, LOGITS, ONES[:3]), ShapeError, "equal"),
    "cosine": (lambda: nn.CosineEmbeddingLoss()(LOGITS, LOGITS, ONES), ShapeError, r"\(N, D\)"),
    "variance": (lambda: nn.GaussianNLLLoss()(LOGITS, ONES, -ONES), DataError, "var holds"),
    "variance shape": (
        lambda: nn.GaussianNLLLoss()(LOGITS, ONES, ONES[:, :2]),
        ShapeError,
        "missing last axis",
    ),
    "counts": (lambda: nn.PoissonNLLLoss()(LOGITS, -ONES), DataError, "target holds"),
    "rates": (
        lambda: nn.PoissonNLLLoss(log_input=False)(-ONES, ONES),
        DataError,
        "input holds",
    ),
    "ints": (lambda: nn.KLDivLoss()(np.ones(2, int), np.ones(2)), DTypeError, "floats"),
    "shapes": (lambda: nn.L1Loss()(LOGITS, LOGITS[:, 0]), ShapeError, "equal shapes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(what):
    make, error, message = WRONG[what]
    assert issubclass(error, GpubpError)
    with pytest.raises(error, match=message):
        make()
