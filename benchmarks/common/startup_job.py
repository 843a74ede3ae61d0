"""What a new process does in `startup.py`: `python -m common.startup_job <module> <variant>`.

Trains the bundled digits and prints the mean loss of the last epoch.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np

from common.rows import Row, Task

# 1408 of the 1437 training images, in batches of 32, for 20 epochs.
DIGITS = Row("digits", (64, 128, 10), 32, batches=44, epochs=20, data="digits")


def main() -> None:
    """Train and print."""
    module, variant = sys.argv[1:]
    case = importlib.import_module(module).build(variant, Task(DIGITS, "adam"))
    case.reset()
    losses = np.asarray(case.run(), np.float64)
    # One loss a step, or one an epoch.
    print(losses[-(len(losses) // DIGITS.epochs) :].mean(), flush=True)


if __name__ == "__main__":
    main()
