#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-28): gradients in float64 that have the digits of float32.
#
# In float64 one expects gradients to about 1e-16. Those of hardsigmoid and of celu go through a
# constant that was rounded to float32 (1/6, and 1/alpha), so they are off by some 1e-8, and a
# comparison of another library with PyTorch in float64 fails there though that library is right.
#
# What gpubp does about it: its gradients are exact; its tests compare celu with its definition.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import math
import sys

import torch
import torch.nn.functional as F

x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
F.hardsigmoid(x).sum().backward()
hardsigmoid = x.grad.item() - 1 / 6
x = torch.full((1,), -0.3, dtype=torch.float64, requires_grad=True)
F.celu(x, 1.3).sum().backward()
celu = x.grad.item() - math.exp(-0.3 / 1.3)
print("torch", torch.__version__)
print("hardsigmoid at 0: expected 1/6 to 1e-16, off by", hardsigmoid)
print("celu(alpha=1.3) at -0.3: expected exp(-0.3/1.3) to 1e-16, off by", celu)
sys.exit(0 if 1e-10 < abs(hardsigmoid) < 1e-7 and 1e-10 < abs(celu) < 1e-7 else 1)
PY
