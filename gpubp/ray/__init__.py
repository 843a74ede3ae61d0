"""gpubp as jobs of Ray: ranks started by Ray Train, trials of Ray Tune, data sets of Ray Data.

Needs ray (`pip install "gpubp[ray]"`), which is imported when something here is called.
"""

from __future__ import annotations

from gpubp.ray.sources import batches
from gpubp.ray.training import Report, data_parallel_trainer
from gpubp.ray.tuning import population_trial

__all__ = ["Report", "batches", "data_parallel_trainer", "population_trial"]
