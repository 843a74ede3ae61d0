"""Arrays and data frames of Dask as data; they are computed where they are given."""

from __future__ import annotations

import numpy as np
import pytest
from rank_work import X, Y, assert_same_bits, classifier

from gpubp import nn
from gpubp.data.frames import computed
from gpubp.train import Trainer


class Lazy:
    """What looks like a collection of Dask's."""

    def __init__(self, value):
        self.value = value

    def __dask_graph__(self):
        return {}

    def compute(self):
        return self.value


def _fitted(X, y, held_out):
    model, optimizer = classifier()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, backend="numpy")
    history = trainer.fit(X, y, epochs=2, verbose=False, validation_data=held_out)
    return {
        **{k: np.array(v) for k, v in history.items()},
        **model.state_dict(),
        "predicted": trainer.predict(X),
        "evaluated": np.array(list(trainer.evaluate(X, y).values())),
    }


def test_lazy_collections_are_computed_and_others_stay_as_they_are():
    given = (X, {"a": [1, 2]}, "text")
    assert computed(given) is given
    made = computed((Lazy(X), {"a": Lazy(Y), "b": 3}))
    assert made[0] is X and made[1]["a"] is Y and made[1]["b"] == 3
    expected = _fitted(X, Y, (X, Y))
    assert_same_bits(_fitted(Lazy(X), Lazy(Y), (Lazy(X), Lazy(Y))), expected)


def test_arrays_of_dask_give_what_arrays_of_numpy_give():
    da = pytest.importorskip("dask.array", reason="needs dask")
    lazy = da.from_array(X, chunks=(13, 6)), da.from_array(Y, chunks=17)
    assert_same_bits(_fitted(*lazy, lazy), _fitted(X, Y, (X, Y)))


def test_data_frames_of_dask_give_what_arrays_give():
    dd = pytest.importorskip("dask.dataframe", reason="needs dask and pandas")
    pd = pytest.importorskip("pandas")
    names = np.array(["ant", "bee", "cow"])
    frame = dd.from_pandas(pd.DataFrame(X), npartitions=3)
    labels = dd.from_pandas(pd.Series(names[Y]), npartitions=3)
    assert_same_bits(_fitted(frame, labels, (frame, labels)), _fitted(X, Y, (X, Y)))
