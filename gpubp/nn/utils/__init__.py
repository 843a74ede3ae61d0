"""Helpers with torch.nn.utils' names: `rnn`, for sequences of different lengths."""

from gpubp.nn.utils import rnn

__all__ = ["rnn"]
