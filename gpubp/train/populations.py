"""Files of populations: where all members stand, so that training goes on from there, bit for bit.

Comes in: a population. Goes out: one safetensors file with an array (members, ...) for each slot,
and the same again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp.arguments import checked
from gpubp.errors import CheckpointError, GpubpError
from gpubp.runtime.population import Population
from gpubp.train import tensorfile
from gpubp.train.tensorfile import Path_

KIND = "population"


@checked
def save_population(
    path: Path_, population: Population, extra: Mapping[str, Any] | None = None
) -> None:
    """Write where all members stand to a file; it appears as a whole or not at all.

    Weights, optimiser, hyper-parameters, schedules, random numbers, orders, histories, and which
    members were stopped. Call it between runs, or in a run's callback.

    Args:
        path: the file.
        population: whose members.
        extra: JSON values to keep with it.

    Raises:
        CheckpointError: it cannot be written.
    """
    state = population.full_state()
    record = {"kind": KIND, "state": state["record"], "extra": dict(extra or {})}
    tensorfile.write(path, state["arrays"], record)


@checked
def load_population(path: Path_, population: Population) -> dict[str, Any]:
    """Let a population go on from where a file's stood; if it raises, nothing has changed.

    Args:
        path: the file.
        population: made by the same call of `gp.compile_population` as the one that was saved.

    Returns:
        The `extra` it was saved with.

    Raises:
        CheckpointError: the file is damaged, of another kind, or of another population.
    """
    arrays, record = tensorfile.read(path)
    if record.get("kind") != KIND:
        raise CheckpointError(f"{path} is no file of a population.")
    try:
        population.load_full_state({"arrays": arrays, "record": record["state"]})
    except GpubpError as error:
        raise CheckpointError(f"{path} does not fit the population: {error}") from error
    extra: dict[str, Any] = record["extra"]
    return extra
