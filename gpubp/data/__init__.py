"""Bundled data, splits, and checks of input data."""

from gpubp.data.digits import load_digits, train_test_split

__all__ = ["load_digits", "train_test_split"]
