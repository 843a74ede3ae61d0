"""Data: the bundled digits, splits, files, standardisation, and checks of input."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.data.ahead import prefetch
    from gpubp.data.boxes import batched_nms, box_area, box_convert, box_iou, nms
    from gpubp.data.digits import load_digits, train_test_split
    from gpubp.data.encoding import Encoding
    from gpubp.data.images import read_images
    from gpubp.data.negatives import NegativeSampler
    from gpubp.data.npz import read_npz
    from gpubp.data.parquet import read_parquet
    from gpubp.data.reading import read_csv
    from gpubp.data.replay import ReplayBuffer
    from gpubp.data.scaling import Standardizer
    from gpubp.data.table import Table
    from gpubp.data.vocabulary import Vocabulary, words
else:
    from gpubp import habits, lazy

    # The same names, by the submodule that has them.
    _LAZY = lazy.by_home(
        {
            "ahead": "prefetch",
            "boxes": "batched_nms box_area box_convert box_iou nms",
            "digits": "load_digits train_test_split",
            "encoding": "Encoding",
            "images": "read_images",
            "negatives": "NegativeSampler",
            "npz": "read_npz",
            "parquet": "read_parquet",
            "reading": "read_csv",
            "replay": "ReplayBuffer",
            "scaling": "Standardizer",
            "table": "Table",
            "vocabulary": "Vocabulary words",
        }
    )
    __getattr__, __dir__ = lazy.names("gpubp.data", _LAZY, habits.DATA)

__all__ = [
    "Encoding",
    "NegativeSampler",
    "ReplayBuffer",
    "Standardizer",
    "Table",
    "Vocabulary",
    "batched_nms",
    "box_area",
    "box_convert",
    "box_iou",
    "load_digits",
    "nms",
    "prefetch",
    "read_csv",
    "read_images",
    "read_npz",
    "read_parquet",
    "train_test_split",
    "words",
]
