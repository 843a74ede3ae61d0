#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): the weighted mean of huber_loss is not a weighted mean.
#
# F.mse_loss, F.l1_loss and F.huber_loss take `weight`, one number an element. With elements that are
# all the same, any weighted mean of them is that element, and for mse_loss and l1_loss it is: the sum
# is divided by the sum of the weights. huber_loss divides it by the number of elements: twice as
# much for weights 1 and 3.
#
# What gpubp does about it: each of its three functions divides as torch's does.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch
from torch.nn import functional

ones, zeros, weight = torch.ones(2), torch.zeros(2), torch.tensor([1.0, 3.0])
found = [
    float(functional.mse_loss(ones, zeros, weight=weight)),
    float(functional.l1_loss(ones, zeros, weight=weight)),
    2 * float(functional.huber_loss(ones, zeros, delta=9.0, weight=weight)),
]
print("torch", torch.__version__)
print("expected", [1.0, 1.0, 1.0], "found", found)
sys.exit(0 if found == [1.0, 1.0, 2.0] else 1)
PY
