"""Data: the bundled digits, splits, files, standardisation, and checks of input."""

from gpubp.data.digits import load_digits, train_test_split
from gpubp.data.encoding import Encoding
from gpubp.data.npz import read_npz
from gpubp.data.prefetch import prefetch
from gpubp.data.scaling import Standardizer
from gpubp.data.table import Table, read_csv

__all__ = [
    "Encoding",
    "Standardizer",
    "Table",
    "load_digits",
    "prefetch",
    "read_csv",
    "read_npz",
    "train_test_split",
]
