"""What the ranks of a fit must be told alike, so that none waits for what others do not do.

Comes in: a run, its plan and data. Goes out: texts by name, which ranks compare before the first
step. (What a step is made of, and the data that it reads, its programs compare themselves.)
"""

from __future__ import annotations

from gpubp.distributed.agreement import fingerprint
from gpubp.runtime.rank_facts import facts_of_schedule
from gpubp.train.inputs import Data
from gpubp.train.plan import Plan
from gpubp.train.run import Run


def facts_of_fit(run: Run, plan: Plan, data: Data, last_epoch: int) -> dict[str, str]:
    """The facts.

    Args:
        run: that is about to train.
        plan, data: of the call.
        last_epoch: at which it ends.
    """
    state = run.state
    facts = {
        "the epochs to train": f"{state.epoch + 1} to {last_epoch}",
        "the steps done": f"{state.steps}, {state.position} samples into an epoch",
        "max_steps": str(plan.max_steps),
        "the metrics": ", ".join(metric.name for metric in data.metrics) or "none",
        "the held-out data": _held_out(run, data),
    }
    if run.scheduler is not None and run.scheduler_every == "epoch":
        facts |= facts_of_schedule(run.scheduler)
    if run.ranks.divide:  # all come where the state is saved
        facts["saving"] = f"{plan.checkpoint is not None} {plan.save_every} {plan.save_every_steps}"
    return facts


def _held_out(run: Run, data: Data) -> str:
    if data.held_out is None:
        return "none"
    arrays = data.held_out.arrays
    if run.ranks.own_data:
        return ", ".join(f"{a.shape[1:]} {a.dtype}" for a in arrays)
    return ", ".join(map(fingerprint, arrays))
