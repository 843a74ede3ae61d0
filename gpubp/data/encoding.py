"""From a data file to numbers and from outputs to predictions: stored with the model, as JSON.

Comes in: a `Table`, or arrays. Goes out: X of shape (samples, width) and targets; later, from the
same description, X of other files, and predictions in the words of the first one.

Columns of numbers are taken as they are, columns of names become one column a name (one-hot); what
a column is, `columns` and `described` find out.
Numbers, and the targets of a regression, are standardised by what the training rows measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data.cells import Cells
from gpubp.data.columns import Column, NewNames, encoded
from gpubp.data.numerals import label_key
from gpubp.data.scaling import PART, Standardizer
from gpubp.data.table import Table
from gpubp.errors import DataError, ShapeError, unknown_name

TASKS = ("auto", "classification", "regression")
# A target of so few different whole numbers is a class label.
MOST_CLASSES = 20


@dataclass
class Encoding:
    """How data become numbers.

    Attributes:
        task: "classification" or "regression".
        target: the name of the target.
        columns: the features of CSV files; empty for arrays.
        width: numbers a sample.
        classes: the labels, in the order of the model's outputs.
        outputs: outputs of the model.
        scale: of the features, or None.
        target_scale: of the targets of a regression, or None.
        target_unit: of the targets of a regression, such as "$".
        ids: columns of CSV files that say who, not what: predictions have them beside.
        image: (channels, height, width) of images; empty for other samples.
        resized: images of other sizes are resized.
    """

    task: str
    target: str
    columns: list[Column]
    width: int
    classes: list[Any]
    outputs: int
    scale: Standardizer | None = None
    target_scale: Standardizer | None = None
    target_unit: str = ""
    ids: list[str] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    resized: bool = False

    def features(
        self, table: Table, advice: str = "", notes: NewNames | None = None
    ) -> NDArray[np.float64]:
        """X before standardisation, (rows, width).

        Args:
            table: with all columns of the training data.
            advice: what to do about missing values.
            notes: counts names not seen in training.

        Raises:
            DataError: missing values that are not filled in, cells that are no numbers, names not
                seen in training if there are no notes, other units; each with its place.
            UnknownNameError: a column is not there.
        """
        table.check_complete([c.name for c in self.columns if c.fill is None], advice)
        return np.concatenate([encoded(table, c, notes) for c in self.columns], axis=1)

    def array(self, X: NDArray[Any], name: str) -> NDArray[Any]:
        """X of an array: float64, (samples, width); of images as they are, (samples, channels,
        height, width). Raises ShapeError for another width, or other sizes.
        """
        if X.ndim == 0 or X.dtype.kind not in "fiub" or not len(X):
            raise DataError(f"{name} is {X.dtype} of shape {X.shape}; expected samples of numbers.")
        _check_digits(X, name)
        if self.image:
            return self._images(X, name)
        flat = X.reshape(len(X), -1).astype(np.float64)
        if flat.shape[1] != self.width:
            raise ShapeError(
                f"{name} has {flat.shape[1]} numbers a sample, the model takes {self.width}."
            )
        return flat

    def _images(self, X: NDArray[Any], name: str) -> NDArray[Any]:
        found = X[:, np.newaxis] if X.ndim == 3 else X
        if list(found.shape[1:]) != self.image:
            has, takes = (" x ".join(map(str, s)) for s in (found.shape[1:], self.image))
            raise ShapeError(f"{name} has images of {has}, the model takes {takes}.")
        return found

    def scaled(self, X: NDArray[Any]) -> NDArray[np.float32]:
        """What the model takes."""
        if self.image:  # in parts: they are large, and often of bytes
            out = np.empty(X.shape, np.float32)
            for i in range(0, len(X), PART):
                part = X[i : i + PART]
                out[i : i + PART] = part if self.scale is None else self.scale.transform(part)
            return out
        return (X if self.scale is None else self.scale.transform(X)).astype(np.float32)

    def labels(self, given: Sequence[Any], places: Table | None = None) -> NDArray[np.int64]:
        """Class indices of labels. Raises DataError for one not seen in training."""
        found = self.known_labels(given)
        if (found < 0).any():
            i = int(np.argmax(found < 0))
            where = places.where(i, self.target) if places else f"{self.target}, sample {i}"
            raise DataError(
                f"{where}: label {given[i]!r} was not among those of the training data."
            )
        return found

    def known_labels(self, given: Sequence[Any]) -> NDArray[np.int64]:
        """Class indices of labels, -1 for those not seen in training; "0.0" is the label "0"."""
        index = {label_key(label): i for i, label in enumerate(self.classes)}
        if isinstance(given, Cells):
            different, codes = given.coded
            return np.array([index.get(label_key(c), -1) for c in different], np.int64)[codes]
        found = {label: index.get(label_key(label), -1) for label in set(given)}
        return np.array([found[label] for label in given], np.int64)

    def scaled_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        """Targets for the loss: class indices as they are, or standardised (rows, outputs)."""
        if self.task == "classification":
            return y
        found = np.asarray(y, np.float64).reshape(len(y), self.outputs)  # there may be no rows
        scaled = found if self.target_scale is None else self.target_scale.transform(found)
        return scaled.astype(np.float32)

    def predictions(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """Labels, or numbers in the units of the data, (samples, outputs)."""
        found: NDArray[Any]
        if self.task == "classification":
            found = np.array(self.classes)[outputs.argmax(axis=1)]
            return found
        found = outputs.astype(np.float64).reshape(len(outputs), -1)
        return found if self.target_scale is None else self.target_scale.inverse(found)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        scales = {
            name: None if scale is None else scale.to_dict()
            for name, scale in (("scale", self.scale), ("target_scale", self.target_scale))
        }
        plain = {"task": self.task, "target": self.target, "width": self.width}
        columns = [column.to_dict() for column in self.columns]
        found = {"columns": columns, "classes": self.classes, "outputs": self.outputs}
        return {**plain, **found, **scales, "target_unit": self.target_unit, **self._if_any()}

    def _if_any(self) -> dict[str, Any]:
        found = {"image": self.image, "resized": self.resized} if self.image else {}
        return {**found, "ids": self.ids} if self.ids else found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Encoding:
        """From `to_dict`. Raises KeyError or TypeError for anything else."""
        found = dict(values)
        found["columns"] = [Column(**column) for column in found["columns"]]
        for name in ("scale", "target_scale"):
            if found[name] is not None:
                found[name] = Standardizer.from_dict(found[name])
        return cls(**found)


def of_arrays(
    X: NDArray[Any], y: NDArray[Any], target: str, task: str = "auto", images: bool = False
) -> Encoding:
    """The encoding of arrays: X (samples, ...) of numbers, y (samples,) or (samples, outputs).

    Args:
        X: with `images`, (samples, channels, height, width), or (samples, height, width).
        y: labels, or numbers.
        target: its name.
        task: see `of_table`.
        images: they stay images.

    Raises:
        UnknownNameError: no such task.
        DataError: arrays that cannot be used.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if X.ndim < 2 or not X.size:
        raise DataError(f"X has shape {X.shape}; expected (samples, numbers).")
    if y.ndim not in (1, 2) or not y.size or y.dtype.kind not in "fiubU":
        raise DataError(f"{target} is {y.dtype} of shape {y.shape}; expected one target a sample.")
    _check_digits(y, target)
    if len(X) != len(y):
        raise DataError(f"X has {len(X)} samples and {target} has {len(y)}.")
    if task == "auto":
        few = y.dtype.kind in "iub" and len(np.unique(y)) <= max(MOST_CLASSES, len(y) // 10)
        task = "classification" if y.ndim == 1 and (few or y.dtype.kind == "U") else "regression"
    if task == "classification" and y.ndim != 1:
        raise DataError(f"{target} has shape {y.shape}; expected one label a sample.")
    if task == "regression" and y.dtype.kind == "U":
        raise DataError(f"{target} holds text; expected numbers for a regression.")
    classes = np.unique(y).tolist() if task == "classification" else []
    outputs = len(classes) or (1 if y.ndim == 1 else y.shape[1])
    width = int(np.prod(X.shape[1:]))
    shape = _image_shape(X) if images else []
    return Encoding(task, target, [], width, classes, outputs, image=shape)


def _image_shape(X: NDArray[Any]) -> list[int]:
    """(channels, height, width)."""
    if X.ndim == 3:
        return [1, *X.shape[1:]]
    if X.ndim != 4:
        raise DataError(
            f"X has shape {X.shape}; expected images (samples, channels, height, width), or "
            "(samples, height, width)."
        )
    if X.shape[3] in (1, 3, 4) and X.shape[1] not in (1, 3, 4):
        raise DataError(
            f"X has shape {X.shape}, with the channels last; expected (samples, channels, height, "
            "width): save numpy.moveaxis(X, 3, 1)."
        )
    return list(X.shape[1:])


def _check_digits(array: NDArray[Any], name: str) -> None:
    """Raise DataError for numbers of more digits than float64 has."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise DataError(
            f"{name} has dtype {array.dtype}, of more digits than float64 has. Round it yourself: "
            "array.astype('float64')."
        )


def numeric_columns(encoding: Encoding) -> NDArray[np.bool_]:
    """Which of the numbers of a sample are measured ones, and not one-hot."""
    if not encoding.columns:
        return np.ones(encoding.image[0] if encoding.image else encoding.width, bool)
    parts = [np.arange(column.width) < column.measured for column in encoding.columns]
    return np.concatenate(parts)
