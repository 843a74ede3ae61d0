#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): CrossMapLRN2d never takes the first channel out of its window.
#
# With size 1 each channel is divided by its own square: 1, 2, 4 should become 1, 0.5, 0.25 (beta 1,
# k 0, alpha 1). All later channels are divided by a sum with the first square in it. The gradient
# is that of another window (of odd sizes it starts one channel too early), so central differences
# disagree with it. The code was moved from indices that start at 1.
#
# What gpubp does about it: its layer is the formula.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch

layer = torch.nn.CrossMapLRN2d(1, alpha=1.0, beta=1.0, k=0.0)
found = layer(torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)).ravel().tolist()
print("torch", torch.__version__)
print("expected", [1.0, 0.5, 0.25], "found", found)
sys.exit(0 if abs(found[1] - 0.4) < 1e-6 else 1)
PY
