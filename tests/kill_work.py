"""A training run in a process of its own, to be killed; see test_checkpoint_kills.py.

`python kill_work.py CHECKPOINT RESULT` trains, resuming if the checkpoint exists, and writes all
bits of the end to RESULT. It says on stdout when training begins.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from points import points, trainer

from gpubp.atomic import replacing
from gpubp.train import EarlyStopping, LRMonitor


def main(checkpoint: str, result: str, backend: str) -> None:
    made = trainer(backend, dropout=0.2, hidden=16)
    print("begins", flush=True)
    X, y = points(400)
    made.fit(
        X,
        y,
        epochs=6,
        batch_size=8,
        verbose=False,
        validation_split=0.1,
        callbacks=[LRMonitor(), EarlyStopping("loss", 20, restore_best_weights=True)],
        checkpoint=checkpoint,
        save_every_steps=4,
        resume=checkpoint if Path(checkpoint).exists() else None,
    )
    everything = {
        "history": made.history.records,
        "steps": made.steps,
        "weights": {k: v.tobytes().hex() for k, v in made.model.state_dict().items()},
        "slots": [[s.name, s.value.tobytes().hex()] for s in made.step.written_slots()],
    }
    with replacing(result, "w") as file:
        json.dump(everything, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
