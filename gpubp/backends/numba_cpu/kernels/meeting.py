"""How processes meet that have mapped the same memory.

Two words, a line apart: how many have arrived, and the generation, which counts meetings. A process
that has arrived looks for a while whether the others have, and then goes back to Python, which asks
whether they still live, and comes again.
"""

from __future__ import annotations

import numpy as np

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native


@native
def over(at, generation, looks):
    """1 once the meeting of this generation is over, 0 after so many looks."""
    for look in range(looks):
        if low.load_acquire(at + 64) != generation:
            return np.int64(1)
        if look > words.SPINS:
            low.yield_thread()
    return np.int64(0)


@native
def ranks_arrive(at, ranks, looks, _unused0, _unused1, _unused2):
    """Arrive; -1 if the meeting is over, else its generation, to be waited for."""
    generation = low.load_acquire(at + 64)
    if low.atomic_add(at, 1) == ranks - 1:
        low.store_i64(at, 0, 0)
        low.store_release(at + 64, generation + 1)
        return np.int64(-1)
    return np.int64(-1) if over(at, generation, looks) == 1 else generation


@native
def ranks_wait(at, generation, looks, _unused0, _unused1, _unused2):
    """Wait on; 1 if the meeting is over."""
    return over(at, generation, looks)


@native
def ranks_tell(at, value, _unused0, _unused1, _unused2, _unused3):
    """Write a word after all that was written before."""
    return low.atomic_swap(at, value)
