"""Sums of gradients, sent between ranks bucket by bucket.

As a rule buckets are sent when the backward pass is done. With `bucket_cap_mb` the program itself
hands them over, by an op that reads a bucket's sums as soon as they are there: the collective
starts, and the program goes on. Buckets are started in one order on all ranks; one that is there
before its turn waits for those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.core import Array, Graph
from gpubp.core.store import TAIL, Bank, Slot
from gpubp.distributed.layout import Bucket, Layout
from gpubp.distributed.parallel import DataParallel
from gpubp.distributed.requests import Request, start_all_reduce, start_reduce_scatter
from gpubp.ops.custom import custom_op
from gpubp.runtime.accumulation import Sums

BESIDE = 1000  # numbers that may go with the sums


class Stretch(NamedTuple):
    """A bucket of the sums of one term of the loss.

    Attributes:
        bank: of the sums.
        bucket: of the parameters; the sums lie at the same places of their bank.
        slots: the sums.
    """

    bank: Bank
    bucket: Bucket
    slots: list[Slot]


def stretches(layout: Layout, params: Sequence[Slot], terms: Sequence[Sums]) -> list[Stretch]:
    """What is to be sent, in its order.

    Args:
        layout: of the parameters.
        params: that are trained.
        terms: of the loss, with the sums of each.
    """
    trained, found = {id(p) for p in params}, []
    for term in terms:
        for bucket in layout.buckets(params):
            slots = [term.of[id(p)] for p in bucket.slots if id(p) in trained and id(p) in term.of]
            for bank in {id(s.bank): s.bank for s in slots if s.bank is not None}.values():
                found.append(Stretch(bank, bucket, [s for s in slots if s.bank is bank]))
    return found


class Exchange:
    """Sends stretches.

    One that is a whole bank, of which each rank needs its part, is sent from where it lies: the
    tail of the bank has room for what makes parts equal. Others are copied to buffers.

    Args:
        parallel: how ranks work together.
        stretches: what to send.
        scatter: a rank needs the sums of its own part alone.
    """

    def __init__(self, parallel: DataParallel, stretches: list[Stretch], scatter: bool) -> None:
        self._parallel, self._stretches, self._scatter = parallel, stretches, scatter
        self._buffers = [self._buffer(stretch) for stretch in stretches]
        self._filled, self._live = [False] * len(stretches), False
        self._requests: list[Request] = []

    def _length(self, bucket: Bucket) -> int:
        size = self._parallel.size
        return size * bucket.each(size) if self._scatter else bucket.stop - bucket.start

    def _buffer(self, stretch: Stretch) -> NDArray[Any] | None:
        """None for a stretch that is sent from where it lies."""
        bank, bucket = stretch.bank, stretch.bucket
        length = self._length(bucket)
        whole = bucket.start == 0 and bucket.stop == bank.size and length <= bank.size + TAIL
        if whole and self._scatter and self._parallel.cap is None:
            return None
        return np.zeros(length, bank.dtype)

    def _sent(self, number: int) -> NDArray[Any]:
        """What is sent of a stretch."""
        buffer, stretch = self._buffers[number], self._stretches[number]
        if buffer is not None:
            return buffer
        return stretch.bank.with_tail[: self._length(stretch.bucket)]

    def begin(self, live: bool) -> None:
        """A batch begins; `live`: what its program hands over is to be sent."""
        self._filled, self._live = [False] * len(self._stretches), live
        self._requests = []

    def fill(self, number: int, arrays: Sequence[NDArray[Any]]) -> None:
        """The program has the sums of a stretch."""
        if not self._live:
            return
        stretch, buffer = self._stretches[number], self._sent(number)
        buffer[...] = 0
        for slot, array in zip(stretch.slots, arrays, strict=True):
            start = slot.offset - stretch.bucket.start
            buffer[start : start + slot.size] = array.reshape(-1)
        self._filled[number] = True
        self._start_those_filled()

    def start(self) -> None:
        """Start what the program has not handed over: it lies in the banks."""
        for number, stretch in enumerate(self._stretches):
            if not self._filled[number]:
                bucket, sent = stretch.bucket, self._sent(number)
                length = bucket.stop - bucket.start
                if self._buffers[number] is not None:
                    sent[:length] = stretch.bank.data[bucket.start : bucket.stop]
                sent[length:] = 0
                self._filled[number] = True
        self._start_those_filled()
        self._live = False

    def has_room(self, width: int) -> bool:
        """Whether a vector of so many numbers can go with the sums, if these are one stretch that
        lies where ranks of one machine take it from."""
        able = hasattr(self._parallel.communicator, "reduce_scatter_beside")
        return able and len(self._buffers) == 1 and self._buffers[0] is None and width <= BESIDE

    def sum_with(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """All at once, where there is room: this rank's part of the sums, and that of a vector."""
        (stretch,), sent, total = self._stretches, self._sent(0), vector.copy()
        sent[stretch.bucket.stop - stretch.bucket.start :] = 0
        communicator: Any = self._parallel.communicator
        communicator.reduce_scatter_beside(sent.reshape(self._parallel.size, -1), total)
        self._live = False
        return total

    def _start_those_filled(self) -> None:
        communicator, size = self._parallel.communicator, self._parallel.size
        while len(self._requests) < len(self._filled) and self._filled[len(self._requests)]:
            buffer = self._sent(len(self._requests))
            if self._scatter:
                rows = buffer.reshape(size, -1)
                self._requests.append(start_reduce_scatter(communicator, rows))
            else:
                self._requests.append(start_all_reduce(communicator, buffer))

    def finish(self) -> None:
        """Wait for all; the banks hold the sums then, those of this rank's part at least."""
        for request in self._requests:
            request.wait()
        for stretch, buffer in zip(self._stretches, self._buffers, strict=True):
            bucket, bank = stretch.bucket, stretch.bank
            if buffer is None:
                continue
            low, high = bucket.start, bucket.stop
            if self._scatter:
                low, high = bucket.part(self._parallel.rank, self._parallel.size)
            bank.data[low:high] = buffer[low - bucket.start : high - bucket.start]


class HandedOver:
    """The op by which a program hands sums over.

    Attributes:
        exchange: that gets them; None while there is none.
    """

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self._tokens: dict[int, Slot] = {}
        self._op = custom_op(
            "hand_over", self._forward, None, lambda *types, number: ((), "float64")
        )

    def _forward(self, *arrays: NDArray[Any], number: int) -> NDArray[Any]:
        if self.exchange is not None:
            self.exchange.fill(number, arrays)
        return np.zeros(())

    @property
    def tokens(self) -> list[Slot]:
        """What the op writes, so that a program has it."""
        return list(self._tokens.values())

    def append(self, graph: Graph, stretches: Sequence[Stretch]) -> None:
        """Append the op to a trace that writes the sums, once for each stretch."""
        written = {id(slot): node for slot, node in graph.writes}
        for number, stretch in enumerate(stretches):
            nodes = [written.get(id(slot)) for slot in stretch.slots]
            if None in nodes:
                continue  # another trace of the step writes them
            arrays = [Array(graph, node) for node in nodes if node is not None]
            token = self._tokens.setdefault(number, Slot(f"handed_over_{number}", 0.0, np.float64))
            graph.writes.append((token, self._op(*arrays, number=number).node))
