#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): embedding_bag divides a row's gradient by another row's frequency.
#
# With scale_grad_by_freq=True the gradient of a row is divided by how often the row is looked up; where
# every bag's sum has cotangent 1, each row that is looked up has gradient 1 then, as F.embedding gives.
# For indices 1, 2, 2, 2, 3 in bags, row 3 has 1/3: the count of a row before it (pytorch #190063).
#
# What gpubp does about it: rows are divided by their own frequency, which tests compute by hand.
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

indices, offsets = torch.tensor([1, 2, 2, 2, 3]), torch.tensor([0, 2])


def gradient(look_up):
    table = torch.zeros(5, 1, dtype=torch.float64, requires_grad=True)
    look_up(table).sum().backward()
    return [round(value, 6) for value in table.grad[:, 0].tolist()]


bags = gradient(
    lambda t: functional.embedding_bag(indices, t, offsets, mode="sum", scale_grad_by_freq=True)
)
plain = gradient(lambda t: functional.embedding(indices, t, scale_grad_by_freq=True))
print("torch", torch.__version__, "expected", plain, "found", bags)
sys.exit(0 if plain == [0, 1, 1, 1, 0] and bags == [0, 1, 1, 0.333333, 0] else 1)
PY
