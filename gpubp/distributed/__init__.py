"""Training on several ranks: processes, on one machine or many, that share each batch.

`init()` is the communicator of this process; `gp.compile_step(..., communicator=...)` and
`Trainer(..., communicator=...)` take it, or a `DataParallel` with options. Start ranks with
`python -m gpubp.distributed run -n 4 script.py` or `mpirun -n 4 python script.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpubp.distributed.communicator import Communicator, LocalCommunicator
    from gpubp.distributed.parallel import DataParallel
    from gpubp.distributed.starting import init
    from gpubp.distributed.threads import run_threads, thread_group
else:
    from gpubp import lazy

    # The same names, by the submodule that has them.
    _LAZY = lazy.by_home(
        {
            "communicator": "Communicator LocalCommunicator",
            "parallel": "DataParallel",
            "starting": "init",
            "threads": "run_threads thread_group",
        }
    )
    __getattr__, __dir__ = lazy.names("gpubp.distributed", _LAZY)

__all__ = [
    "Communicator",
    "DataParallel",
    "LocalCommunicator",
    "init",
    "run_threads",
    "thread_group",
]
