"""What a trained model says about samples: its outputs, probabilities, labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import nn, ops
from gpubp.arguments import checked
from gpubp.backends.device_array import DeviceArray
from gpubp.core.interop import check_dtype
from gpubp.data.checks import check_finite, check_samples
from gpubp.data.frames import computed, from_frame
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.program_cache import as_input
from gpubp.train.evaluation import BATCH
from gpubp.train.run import Run


class Predicting(Run):
    """A run that predicts."""

    @checked
    def predict(self, X: Any, batch_size: int = BATCH) -> Any:
        """The model's outputs in eval mode, for all samples; on the device if X is there.

        Args:
            X: as for `fit`.
            batch_size: samples at a time.

        Raises:
            DataError: X is empty or not finite.
        """
        data = Arguments.taken((computed(X),), ("X",)).converted(self._read)
        check_samples(data)
        for array, name in zip(data.arrays, data.names):
            if not isinstance(array, DeviceArray):
                check_finite(array, name)
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size}: expected at least 1.")
        return self.evaluator.predict(data, self.floating, batch_size)

    @checked
    def predict_proba(self, X: Any, batch_size: int = BATCH) -> Any:
        """The probabilities of the classes, by what the loss takes outputs for.

        Args:
            X, batch_size: as for `predict`.

        Returns:
            (samples, classes, ...), as softmax makes them of a cross-entropy's outputs; the outputs
            of a model for BCEWithLogitsLoss, of any shape, as sigmoid makes them.

        Raises:
            DataError: the loss does not say what outputs mean.
        """
        make = self._probabilities()
        return make(self.predict(X, batch_size))

    @checked
    def predict_classes(self, X: Any, batch_size: int = BATCH) -> NDArray[Any]:
        """The likeliest class of each sample: its index, or its label if labels were texts.

        Args:
            X, batch_size: as for `predict`.

        Raises:
            DataError: the loss does not say what outputs mean.
        """
        found = np.asarray(self.predict_proba(X, batch_size))
        if self._means(nn.BCELoss, nn.BCEWithLogitsLoss):
            indices = (found > 0.5).astype(np.int64)
            indices = indices[:, 0] if indices.ndim == 2 and indices.shape[1] == 1 else indices
        else:
            indices = found.argmax(axis=1)
        return np.array(self.classes)[indices] if self.classes else indices

    def _means(self, *kinds: type) -> bool:
        inside = self.loss_fn.modules() if isinstance(self.loss_fn, nn.Module) else [self.loss_fn]
        return any(isinstance(module, kinds) for module in inside)

    def _probabilities(self) -> Any:
        """What makes probabilities of outputs."""
        if self._means(nn.CrossEntropyLoss):
            return lambda outputs: ops.softmax(outputs, 1)
        if self._means(nn.NLLLoss):
            return ops.exp
        if self._means(nn.BCEWithLogitsLoss):
            return ops.sigmoid
        if self._means(nn.BCELoss):
            return lambda outputs: outputs
        raise DataError(
            "the loss does not say what the model's outputs mean: probabilities are known for "
            "CrossEntropyLoss, NLLLoss, BCEWithLogitsLoss and BCELoss. Write what makes them, such "
            "as gp.ops.softmax(trainer.predict(X), axis=1)."
        )

    def _read(self, value: Any, name: str) -> Any:
        if isinstance(value, np.memmap):
            check_dtype(value.dtype, name)
            return value
        value = from_frame(value, name)
        return as_input(value, name, self.floating, self.evaluator.backend)
