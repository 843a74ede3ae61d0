"""Sample weights and class weights: one more resident array, which enters the loss in the program.

The weighted loss of a batch is mean_i(w_i l_i), where l_i is the loss of sample i (the mean over
its outputs): the sum is divided by what it is divided by without weights (the number of samples,
of labels that are not ignored, the weights of the classes) and not by the sum of the weights, as
in Keras ("sum_over_batch_size"). So weights scale gradients, and weights of 1 change nothing.

Class weights weigh the rows that are trained on, and are counted over these alone: held-out rows
have their sample weights only.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import is_number, shown
from gpubp.core.interop import host_array
from gpubp.errors import ArgumentError, DataError
from gpubp.nn.loss_base import Loss, weighing_samples
from gpubp.nn.module import Module

ClassWeight = Mapping[Any, float] | Literal["balanced"]


def weighted_loss(loss_fn: Any, outputs: Any, y: Any, weights: Any) -> Any:
    """The loss where sample i costs w_i times what it costs otherwise.

    Args:
        loss_fn: a loss of `gpubp.nn`, or a module with some inside; or a function of (outputs, y,
            weights) that returns the weighted loss itself.
        outputs: of the model.
        y: targets.
        weights: one a sample.

    Raises:
        DataError: `loss_fn` can do neither.
        ShapeError: the losses are not one or several a sample.
    """
    if not isinstance(loss_fn, Loss) and _takes_weights(loss_fn):
        return loss_fn(outputs, y, weights)
    if isinstance(loss_fn, Module) and any(isinstance(m, Loss) for m in loss_fn.modules()):
        with weighing_samples(weights):
            return loss_fn(outputs, y)
    raise DataError(
        "sample and class weights need a loss of gpubp.nn, or a function of (outputs, y, "
        f"weights) that returns the weighted loss; {loss_fn!r} does not take three arguments."
    )


def _takes_weights(loss_fn: Any) -> bool:
    """Whether it can be called with (outputs, y, weights)."""
    try:
        called = loss_fn.forward if isinstance(loss_fn, Module) else loss_fn
        inspect.signature(called).bind(None, None, None)
    except TypeError:
        return False
    except ValueError:  # built in: it has no signature to look at
        return True
    return True


def sample_weights(
    y: NDArray[Any],
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    dtype: Any,
    name: str = "sample_weight",
    rows: NDArray[np.int64] | None = None,
    classes: int | None = None,
    ignored: int | None = None,
) -> NDArray[Any] | None:
    """One weight a sample: those given, times those of the classes; None if neither was given.

    Args:
        y: targets; with `class_weight` one whole number a sample, of any dtype: shape (samples,)
            or (samples, 1).
        sample_weight: shape (samples,) or (samples, 1), finite, at least 0 and not all 0.
        class_weight: weight of each label (1 where it has none; a label that does not occur is no
            error), or "balanced" for samples / (classes that occur * samples of the class), as
            scikit-learn.
        dtype: of the result.
        name: of `sample_weight`, for errors.
        rows: that are trained on, and have class weights; None for all.
        classes: how many there are, if known: labels are 0 to classes - 1.
        ignored: a label that counts as none.

    Raises:
        DataError: weights that cannot be used.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights: NDArray[np.float64] = np.ones(len(y))
    if sample_weight is not None:
        weights = np.asarray(host_array(sample_weight, name), np.float64)
    if weights.shape == (len(y), 1):
        weights = weights[:, 0]
    if weights.shape != (len(y),):
        raise DataError(f"{name} has shape {weights.shape}, expected ({len(y)},): one a sample.")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"{name} holds {weights[at]} at index {at}; expected numbers from 0 on.")
    rows = np.arange(len(y)) if rows is None else rows
    if class_weight is not None:
        weights = weights * _of_classes(y, class_weight, rows, classes, ignored)
    if not weights[rows].any():
        raise DataError(f"{name}: all weights are 0, so nothing would be trained.")
    return weights.astype(dtype)


def _of_classes(
    y: NDArray[Any],
    class_weight: ClassWeight,
    rows: NDArray[np.int64],
    classes: int | None,
    ignored: int | None,
) -> NDArray[np.float64]:
    """The weight of each sample's class; 1 for other rows and ignored labels."""
    labels = _one_label_a_sample(y)
    weights = np.ones(len(labels))
    if ignored is not None:
        rows = rows[labels[rows] != ignored]
    found, which, counts = np.unique(labels[rows], return_inverse=True, return_counts=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise DataError(f"class_weight is {class_weight!r}; expected a dict or 'balanced'.")
        table = len(rows) / (len(found) * counts)
    elif not isinstance(class_weight, Mapping):
        raise ArgumentError(
            f"class_weight is {shown(class_weight)}; expected a dict of label to weight, or "
            "'balanced'."
        )
    else:
        known = _checked(class_weight, classes, ignored)
        table = np.array([known.get(int(label), 1.0) for label in found], np.float64)
    weights[rows] = table[which]
    return weights


def _one_label_a_sample(y: NDArray[Any]) -> NDArray[np.int64]:
    flat = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    whole = flat.astype(np.int64) if flat.ndim == 1 else flat
    if flat.ndim != 1 or not np.array_equal(whole, flat):
        raise DataError(
            f"class_weight needs one integer label a sample; y is {y.dtype} of shape {y.shape}."
        )
    return whole


def _checked(
    class_weight: Mapping[Any, float], classes: int | None, ignored: int | None
) -> dict[int, float]:
    known = {}
    for key, value in class_weight.items():
        weight = float(value) if is_number(value) else np.nan
        if not (np.isfinite(weight) and weight >= 0):
            raise DataError(f"class_weight holds {shown(value)}; expected numbers from 0 on.")
        number = float(key) if isinstance(key, (int, float, np.integer, np.floating)) else 0.5
        label = int(number) if number.is_integer() else None
        outside = classes is not None and label is not None and not 0 <= label < classes
        if label is None or (outside and label != ignored):
            to = "whole numbers" if classes is None else f"0 to {classes - 1}"
            raise DataError(
                f"class_weight has a weight for {key!r}, which is no label; labels are {to}."
            )
        known[label] = weight
    return known
