"""gpubp as jobs of Ray: ranks started by Ray Train, data sets of Ray Data.

Needs ray (`pip install "gpubp[ray]"`), which is imported when something here is called.
"""

from __future__ import annotations

from gpubp.ray.sources import batches
from gpubp.ray.training import Report, data_parallel_trainer

__all__ = ["Report", "batches", "data_parallel_trainer"]
