#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): an antialiased image of one column has the first row everywhere.
#
# F.interpolate(x, (4, 1), mode="bilinear", antialias=True) should have four different rows: those of
# the width 1 alone, resized in height. All four are the first. The same holds for bicubic. Two
# columns are right.
#
# What gpubp does about it: its rows differ, and its tests pass over one column there.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F

x = torch.tensor([[[[0.0, 1.0, 4.0], [9.0, 16.0, 25.0]]]])
narrow = F.interpolate(x, size=(2, 1), mode="bilinear", antialias=True).reshape(1, 1, 1, 2)
expected = F.interpolate(narrow, size=(1, 4), mode="bilinear", antialias=True).ravel()
found = F.interpolate(x, size=(4, 1), mode="bilinear", antialias=True).ravel()
print("torch", torch.__version__)
print("expected", expected.tolist())
print("found", found.tolist())
sys.exit(0 if (found == found[0]).all() and not torch.allclose(found, expected) else 1)
PY
