"""Sequences of different lengths, with torch.nn.utils.rnn's names.

Programs have static shapes, so a `PackedSequence` here is the padded array and the lengths: the
layers of `nn.RNN`, `nn.LSTM` and `nn.GRU` leave out what is padded. Nothing is sorted, therefore
batches keep their order, sorted or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpubp.ops.spec import beside, is_concrete, operand


class PackedSequence(NamedTuple):
    """Sequences and their lengths; make it with `pack_padded_sequence` or `pack_sequence`.

    Attributes:
        data: (T, N, ...), time first; what lies behind the end of a sequence is of no meaning.
        lengths: integers (N,).
    """

    data: Any
    lengths: Any


def checked_lengths(lengths: Any, batch: int, longest: int, least: int, what: str) -> Any:
    """Lengths as an array, of which those that are known are in range."""
    lengths = np.asarray(lengths) if isinstance(lengths, (list, tuple)) else operand(lengths)
    if np.dtype(lengths.dtype).kind != "i":
        raise DTypeError(f"{what}: got lengths {describe(lengths)}, expected int32 or int64.")
    if tuple(lengths.shape) != (batch,):
        raise ShapeError(
            f"{what}: got lengths {describe(lengths)}, expected one for each of {batch} sequences."
        )
    if is_concrete(lengths):
        wrong = [int(n) for n in lengths if not least <= n <= longest]
        if wrong:
            raise DataError(
                f"{what}: got a length of {wrong[0]}, expected {least} to {longest}, the length of "
                "the padded array."
            )
    return lengths


def valid_mask(lengths: Any, longest: int) -> Any:
    """bool[T, N, 1]: which elements are before the end of their sequences."""
    places = beside(np.arange(longest).reshape(-1, 1), lengths)
    return ops.expand_dims(ops.less(places, lengths), 2)


def _sequence_axes(x: Any, batch_first: bool, what: str) -> tuple[int, int]:
    """(T, N) of a padded array."""
    if len(x.shape) < 2:
        raise ShapeError(f"{what}: got {describe(x)}, expected (T, N, ...) or (N, T, ...).")
    first, second = int(x.shape[0]), int(x.shape[1])
    return (second, first) if batch_first else (first, second)


@checked
def pack_padded_sequence(
    input: Any,
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """A padded array with its lengths.

    Args:
        input: (T, N, ...), or (N, T, ...) with batch_first.
        lengths: integers (N,) from 1 to T. In a compiled program they are not known: there, longer
            ones count as T, and ones below 1 as no sequence.
        batch_first: the order of the first two axes.
        enforce_sorted: whether lengths that do not fall are refused, as in torch, where they are
            known. It changes nothing else: batches are never sorted.

    Returns:
        The sequences; where the lengths are known, T is the longest of them.

    Raises:
        ShapeError, DTypeError, DataError: lengths that do not fit the array.
    """
    x = operand(input)
    longest, batch = _sequence_axes(x, batch_first, "pack_padded_sequence")
    lengths = checked_lengths(lengths, batch, longest, 1, "pack_padded_sequence")
    x = ops.swapaxes(x, 0, 1) if batch_first else x
    if not is_concrete(lengths):
        return PackedSequence(x, lengths)
    if enforce_sorted and (np.diff(lengths) > 0).any():
        raise DataError(
            "pack_padded_sequence: lengths rise. Sort the sequences by falling length, or pass "
            "enforce_sorted=False."
        )
    return PackedSequence(ops.getitem(x, slice(0, max(lengths.tolist(), default=0))), lengths)


@checked
def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Any, Any]:
    """The padded array and the lengths.

    Args:
        sequence: what `pack_padded_sequence` or a layer gave.
        batch_first: whether the array is (N, T, ...), not (T, N, ...).
        padding_value: what stands behind the ends.
        total_length: T of the result, where it is to be longer than that of `sequence`.

    Raises:
        DataError: total_length is too short.
    """
    data, lengths = sequence
    longest = int(data.shape[0])
    total = longest if total_length is None else total_length
    if total < longest:
        raise DataError(
            f"pad_packed_sequence: total_length {total} is less than the longest sequence, "
            f"{longest}."
        )
    valid = ops.reshape(
        valid_mask(lengths, longest), (longest, data.shape[1], *[1] * (len(data.shape) - 2))
    )
    padded = ops.where(valid, data, padding_value)
    if total > longest:
        rest = np.full((total - longest, *data.shape[1:]), padding_value, padded.dtype)
        padded = ops.concat([padded, beside(rest, padded)], 0)
    return (ops.swapaxes(padded, 0, 1) if batch_first else padded), lengths


@checked
def pad_sequence(
    sequences: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Any:
    """Arrays of different lengths as one.

    Args:
        sequences: arrays (length, ...) that differ in their lengths alone.
        batch_first: whether the result is (N, T, ...), not (T, N, ...).
        padding_value: what stands where a sequence has nothing.
        padding_side: "right", behind the sequences, or "left", before them.

    Raises:
        ArgumentError: no sequence, or another side.
        ShapeError: they differ in more than lengths.
    """
    if padding_side not in ("right", "left"):
        raise ArgumentError(f"padding_side is {padding_side!r}, expected 'right' or 'left'.")
    arrays = [operand(s) for s in sequences]
    if not arrays:
        raise ArgumentError("pad_sequence: got no sequence, expected at least one array.")
    for x in arrays:
        if not x.shape or tuple(x.shape[1:]) != tuple(arrays[0].shape[1:]):
            raise ShapeError(
                f"pad_sequence: got {describe(x)} beside {describe(arrays[0])}; all axes but the "
                "first have to be equal."
            )
    longest = max(int(x.shape[0]) for x in arrays)
    padded = []
    for x in arrays:
        rest = np.full((longest - x.shape[0], *x.shape[1:]), padding_value, x.dtype)
        parts = [x, beside(rest, x)]
        padded.append(ops.concat(parts if padding_side == "right" else parts[::-1], 0))
    return ops.stack(padded, 0 if batch_first else 1)


@checked
def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Any]:
    """The sequences of a padded array, each with its own length.

    Args:
        padded_sequences: (T, N, ...), or (N, T, ...) with batch_first.
        lengths: N integers, known numbers: the shapes of the results follow them.
        batch_first: the order of the first two axes.

    Raises:
        ArgumentError: the lengths are those of a traced function.
    """
    x = operand(padded_sequences)
    longest, batch = _sequence_axes(x, batch_first, "unpad_sequence")
    lengths = checked_lengths(lengths, batch, longest, 0, "unpad_sequence")
    if not is_concrete(lengths):
        raise ArgumentError(
            "unpad_sequence: got lengths that are not known while tracing, expected numbers: "
            "shapes are static. Keep the padded array and its lengths in traced functions."
        )
    x = x if batch_first else ops.swapaxes(x, 0, 1)
    return [ops.getitem(x, (i, slice(0, n))) for i, n in enumerate(lengths.tolist())]


@checked
def pack_sequence(sequences: Any, enforce_sorted: bool = True) -> PackedSequence:
    """Arrays of different lengths as a PackedSequence; see `pad_sequence`."""
    arrays: Sequence[Any] = [operand(s) for s in sequences]
    padded = pad_sequence(arrays)
    lengths = np.array([x.shape[0] for x in arrays], np.int64)
    return pack_padded_sequence(padded, lengths, enforce_sorted=enforce_sorted)


@checked
def unpack_sequence(packed_sequences: PackedSequence) -> list[Any]:
    """The sequences, each with its own length; outside of traced functions."""
    return unpad_sequence(packed_sequences.data, packed_sequences.lengths)
