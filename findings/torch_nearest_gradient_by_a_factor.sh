#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): the gradient of nearest resizing by a factor is not that of its
# values.
#
# F.interpolate(x, scale_factor=1.3) of two elements has two: in one and three axes both are the
# first element, in two axes they are the first and the second. The gradient is [1, 1] in all,
# though the second element is not read in one axis. (So for any factor with an output as long as
# the input, or twice as long.)
#
# What gpubp does about it: in every number of axes it takes the rule of two, which has this gradient.
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

found = {}
for axes in (1, 2):
    x = torch.arange(2.0).reshape(1, 1, *[1] * (axes - 1), 2).requires_grad_()
    y = F.interpolate(x, scale_factor=[1.0] * (axes - 1) + [1.3])
    (gradient,) = torch.autograd.grad(y.sum(), x)
    found[axes] = y.ravel().tolist(), gradient.ravel().tolist()
print("torch", torch.__version__)
for axes, (values, gradient) in found.items():
    print(axes, "axes: values", values, "gradient", gradient)
line, image = found[1], found[2]
sys.exit(0 if line == ([0, 0], [1, 1]) and image == ([0, 1], [1, 1]) else 1)
PY
