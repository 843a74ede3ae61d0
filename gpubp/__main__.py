"""`python -m gpubp` is the command `gpubp`."""

from __future__ import annotations

import sys

from gpubp.cli import main

if __name__ == "__main__":
    sys.exit(main())
