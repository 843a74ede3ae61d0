"""Sizes of the operations that measure a GPU's roofs; apart from PyTorch, which runs them."""

SIDE = 8192  # of the square matrices
COPY_BYTES = 1 << 30
