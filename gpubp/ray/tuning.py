"""Trials of Ray Tune that train a whole population each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gpubp.arguments import checked
from gpubp.errors import DataError
from gpubp.ray.training import imported


@checked
def population_trial(
    make: Callable[[Mapping[str, Any]], Any], **fit: Any
) -> Callable[[Mapping[str, Any]], None]:
    """A trainable for `ray.tune.Tuner`: one trial trains many members side by side.

    Ray searches what needs another program (widths, layers, optimisers), the population what does
    not (rates, seeds, decay). What is reported, after the last epoch, are the numbers of the best
    member (see `Trainer.best`): "best" itself, "members", and the last record of its history.

    Args:
        make: from a trial's config to a `Trainer(population=...)`; runs in the trial.
        **fit: arguments of `Trainer.fit`.

    Raises:
        DataError: in the trial: the trainer has no population.
    """

    def trial(config: Mapping[str, Any]) -> None:
        tune = imported().tune
        trainer = make(config)
        if trainer.population is None:
            raise DataError(
                "make returned a Trainer without a population: pass population={'n': ..., 'lr': "
                "[...]} to it."
            )
        trainer.fit(**{"verbose": False, **fit})
        record = trainer.histories[trainer.best].records[-1]
        numbers = {k: float(v) for k, v in record.items()}
        tune.report({**numbers, "best": trainer.best, "members": len(trainer.histories)})

    return trial
