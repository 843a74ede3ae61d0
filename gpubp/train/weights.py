"""Sample weights and class weights: one more resident array, which enters the loss in the program.

The weighted loss of a batch is mean_i(w_i l_i), where l_i is the loss of sample i (the mean over
its outputs): the sum is divided by the number of samples and not by the sum of the weights, as
in Keras ("sum_over_batch_size"). So weights scale gradients, and weights of 1 change nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import ops
from gpubp.core import describe
from gpubp.errors import DataError, GpubpError, ShapeError
from gpubp.interop import host_array

ClassWeight = Mapping[int, float] | Literal["balanced"]


def weighted_loss(loss_fn: Any, outputs: Any, y: Any, weights: Any) -> Any:
    """mean_i(w_i l_i), or the sum for a loss whose reduction is "sum".

    Args:
        loss_fn: a loss of `gpubp.nn`, whose reduction is switched off here; or a function of
            (outputs, y, weights) that returns the weighted loss itself.
        outputs: of the model.
        y: targets.
        weights: one a sample.

    Raises:
        DataError: `loss_fn` can do neither.
        ShapeError: the losses are not one or several a sample.
    """
    if not hasattr(loss_fn, "reduction"):
        try:
            return loss_fn(outputs, y, weights)
        except TypeError as error:
            if isinstance(error, GpubpError):
                raise
            raise DataError(
                "sample and class weights need a loss of gpubp.nn, or a function of (outputs, y, "
                f"weights) that returns the weighted loss; this one: {error}."
            ) from error
    each = copy.copy(loss_fn)
    each.reduction = "none"
    losses = each(outputs, y)
    if tuple(losses.shape[:1]) != tuple(weights.shape):
        raise ShapeError(
            f"the losses are {describe(losses)}; expected one for each of the weights "
            f"{describe(weights)}."
        )
    if len(losses.shape) > 1:
        losses = ops.mean(losses, axis=tuple(range(1, len(losses.shape))))
    total = ops.sum(losses * weights)
    return total if loss_fn.reduction == "sum" else total / float(weights.shape[0])


def sample_weights(
    y: NDArray[Any],
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight | None,
    dtype: Any,
    name: str = "sample_weight",
) -> NDArray[Any] | None:
    """One weight a sample: those given, times those of the classes; None if neither was given.

    Args:
        y: targets; with `class_weight` integer labels.
        sample_weight: shape (samples,), finite, at least 0 and not all 0.
        class_weight: weight of each label (1 where it has none), or "balanced" for
            samples / (classes * samples of the class), as scikit-learn.
        dtype: of the result.
        name: of `sample_weight`, for errors.

    Raises:
        DataError: weights that cannot be used.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(y))
    if sample_weight is not None:
        weights = np.asarray(host_array(sample_weight, name), np.float64)
    if weights.shape != (len(y),):
        raise DataError(f"{name} has shape {weights.shape}, expected ({len(y)},): one a sample.")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"{name} holds {weights[at]} at index {at}; expected numbers from 0 on.")
    if class_weight is not None:
        weights = weights * _of_classes(y, class_weight)
    if not weights.any():
        raise DataError(f"{name}: all weights are 0, so nothing would be trained.")
    return weights.astype(dtype)


def _of_classes(y: NDArray[Any], class_weight: ClassWeight) -> NDArray[np.float64]:
    if y.dtype.kind != "i" or y.ndim != 1:
        raise DataError(
            f"class_weight needs one integer label a sample; y is {y.dtype} of shape {y.shape}."
        )
    labels, which, counts = np.unique(y, return_inverse=True, return_counts=True)
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise DataError(f"class_weight is {class_weight!r}; expected a dict or 'balanced'.")
        table = len(y) / (len(labels) * counts)
    else:
        strange = [key for key in class_weight if key not in labels]
        if strange:
            raise DataError(
                f"class_weight has a weight for {strange[0]!r}, which is no label of y; labels "
                f"are {', '.join(map(str, labels[:20]))}."
            )
        table = np.array([float(class_weight.get(int(label), 1.0)) for label in labels])
        if not (np.isfinite(table) & (table >= 0)).all():
            raise DataError(f"class_weight holds {table.min()}; expected numbers from 0 on.")
    return np.asarray(table[which], np.float64)
