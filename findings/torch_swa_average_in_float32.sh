#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): the plain average of float64 weights has float32 digits.
#
# torch.optim.swa_utils.AveragedModel with multi_avg_fn=get_swa_multi_avg_fn() should do for lists of
# arrays what get_swa_avg_fn() does for one. But it takes 1 / (n + 1) of a tensor of whole numbers,
# which is a float32 number, and interpolates float64 weights by it: the average of 1, 2 and 6 is
# 3.0000000447, where avg_fn gives 3.
#
# What gpubp does about it: both of its functions compute in the weights' own dtype.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch
from torch.optim.swa_utils import AveragedModel, get_swa_avg_fn, get_swa_multi_avg_fn

found = []
for options in ({"avg_fn": get_swa_avg_fn()}, {"multi_avg_fn": get_swa_multi_avg_fn()}):
    model = torch.nn.Linear(1, 1, bias=False).double()
    averaged = AveragedModel(model, **options)
    for weight in (1.0, 2.0, 6.0):
        model.weight.data.fill_(weight)
        averaged.update_parameters(model)
    found.append(averaged.module.weight.item())
print("torch", torch.__version__)
print("expected", [3.0, 3.0], "found", found)
sys.exit(0 if found[0] == 3.0 and abs(found[1] - 3.0) > 1e-9 else 1)
PY
