"""Imported at the start of Python processes by `gpubp_accel.pth` where GPUBP_ACCEL is set.

It must never stop a process that has nothing to do with scikit-learn.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("sklearn") is not None:
    from gpubp.accel import from_environment

    from_environment()
