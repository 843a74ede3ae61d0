"""A population in a process of its own, to be killed; see test_population_files.py.

`python population_kill_work.py CHECKPOINT RESULT EPOCHS` trains to so many epochs, going on from
the checkpoint if it exists, and writes the state of the end to RESULT. It says on stdout when an
epoch has been saved.
"""

from __future__ import annotations

import sys
from pathlib import Path

import populations as pop

from gpubp.optim import lr_scheduler
from gpubp.train import load_population, save_population


def main(checkpoint: str, result: str, epochs: str) -> None:
    X, y = pop.data()
    made = pop.population(
        5, lr=[0.01, 0.02, 0.03, 0.04, 0.05], scheduler=lambda o: lr_scheduler.StepLR(o, 7)
    )
    if Path(checkpoint).exists():
        load_population(checkpoint, made)
    while len(made.histories[0]) < int(epochs):
        made.run(X, y, batch_size=8)
        save_population(checkpoint, made)
        print("saved", flush=True)
    save_population(result, made)


if __name__ == "__main__":
    main(*sys.argv[1:])
