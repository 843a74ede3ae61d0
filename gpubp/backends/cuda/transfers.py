"""What goes to the device before a run, and what comes back after it.

Comes in: programs, a schedule, a feed. Goes out: inputs, index order, schedule and run words on the
device, and addresses in the programs' tables; afterwards outputs for the host, and what kernels
reported. What is small goes in one copy there and one back; data of several steps stay on the
device, so that the next run on them uploads none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import PROBLEMS, Feed
from gpubp.backends.cuda.drivers.base import Driver
from gpubp.backends.cuda.exchange import begin, end, require_aligned
from gpubp.backends.cuda.loaded import RUN_WORDS, STATUS_WORD, Loaded
from gpubp.backends.cuda.memory import Resident, RunBlock, Staging
from gpubp.backends.device_array import DeviceArray
from gpubp.errors import BackendError, DataError

RESULT_BYTES, ARGUMENT_BYTES = 1 << 16, 1 << 20  # of small runs
PACKED_BYTES = 1 << 19  # of an argument that is copied into a packet first, at most

Outputs = list[tuple[int, NDArray[Any]]]


class Transfers:
    """The copies of one backend's runs.

    Args:
        driver: of the device.

    Attributes:
        block: the run's words, and what is small.
        arguments, results: what is larger.
        resident: data that stay.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.block = RunBlock(driver, RUN_WORDS, RESULT_BYTES, ARGUMENT_BYTES)
        self.arguments, self.results = Staging(driver), Staging(driver)
        self.resident = Resident(driver)

    @property
    def nbytes(self) -> int:
        """Memory that holds data of earlier runs, and can be had for those of the next."""
        return self.arguments.nbytes + self.resident.nbytes

    def prepare(
        self,
        loaded: Sequence[Loaded],
        schedule: NDArray[np.int64],
        feed: Feed,
        apart: Sequence[int] = (),
    ) -> Outputs:
        """Upload what the run reads, but for the inputs `apart`, which come in chunks; returns
        where its outputs for the host will be.
        """
        batched = any(target.program.batched for target in loaded)
        if batched:
            require_aligned(feed)
        begin(self._driver, feed)
        given = [a for i, a in enumerate(feed.inputs) if i not in apart]
        host = [a for a in given if not isinstance(a, DeviceArray)]
        stay = batched and (len(schedule) > 1 or feed.checked)
        at = iter(self._upload(host, feed, schedule, stay))
        inputs = [a.address if isinstance(a, DeviceArray) else next(at) for a in given]
        for i in sorted(apart):
            inputs.insert(i, 0)
        flat = [a for outputs in feed.outputs for a in outputs if not isinstance(a, DeviceArray)]
        distinct = list({id(a): a for a in flat}.values())
        sizes = [a.nbytes for a in distinct]
        places = self.block.place_results(sizes)
        if places is None:
            places = self.results.place(sizes)
        place_of = {id(a): p for a, p in zip(distinct, places, strict=True)}
        for target, outputs in zip(loaded, feed.outputs, strict=True):
            target.prepare(
                inputs,
                [a.address if isinstance(a, DeviceArray) else place_of[id(a)] for a in outputs],
            )
        return list(zip(places, distinct, strict=True))

    def _upload(
        self, host: list[NDArray[Any]], feed: Feed, schedule: NDArray[np.int64], stay: bool
    ) -> list[int]:
        """Copy the host's inputs, the order, the schedule and the run's words; returns addresses of
        the inputs. They `stay` for the next run, if it reads the same.
        """
        steps = np.ascontiguousarray(schedule, np.int64)
        found = self.resident.addresses(host, feed.checked) if stay and host else None
        arrays = [*(host if found is None else ()), feed.order, steps]
        small = [a for a in arrays if a.nbytes <= PACKED_BYTES]
        near = self.block.place_arguments([a.nbytes for a in small])
        if near is None:
            small, near = [], []
        ids = {id(a) for a in small}
        far = iter(self.arguments.upload([a for a in arrays if id(a) not in ids]))
        at = iter(near)
        places = [next(at if id(a) in ids else far) for a in arrays]
        words = np.array([0, places[-1], places[-2], 0], np.int64)
        self.block.upload(words, small, near)
        return places[:-2] if found is None else found

    def collect(self, outputs: Outputs, feed: Feed, reports: bool) -> None:
        """Fetch the outputs for the host and what kernels reported; else order the user's streams
        after the run.

        Raises:
            BackendError: a kernel failed.
            DataError: a label or an index was out of range.
        """
        if not outputs and not reports and end(self._driver, feed):
            return
        near = [(p, a) for p, a in outputs if self.block.holds(p)]
        try:
            words = self.block.download([a for _, a in near], [p for p, _ in near])
        except BackendError as err:
            hint = "Set GPUBP_CUDA_SYNC=1 to learn which instruction it was."
            raise BackendError(f"{err} {hint}") from err
        if not near:
            for place, array in outputs:
                if array.nbytes:
                    self._driver.download(place, array)
        if words[STATUS_WORD]:
            raise DataError(PROBLEMS[int(words[STATUS_WORD])])
