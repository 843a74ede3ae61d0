"""What the benchmarks share. Importing it makes sure that `gpubp` can be imported.

An installed gpubp is measured if there is one, else the checkout that these files are in.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("gpubp") is None:
    sys.path.append(str(Path(__file__).resolve().parents[2]))
