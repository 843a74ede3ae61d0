#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): the float32 gradient of logcumsumexp beside a large number.
#
# The gradient of each element is a sum of numbers between 0 and the cotangents, so a float32 result
# should have some six digits of the float64 one, whatever the inputs are, as that of logsumexp has.
# It is computed from logarithms of magnitude as the inputs: beside an input of 10,000, whose
# neighbours in float32 are 0.001 apart, three digits are left. logsumexp keeps its digits.
#
# What gpubp does about it: running sums are joined pair by pair, so no difference of large numbers
# is taken; a test compares with float64.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch


def slope(name, x):
    x = x.clone().requires_grad_()
    getattr(torch, name)(x, 0).sum().backward()
    return x.grad.double()


torch.manual_seed(0)
x = 3 * torch.randn(200, dtype=torch.float32)
x[100] = 10_000.0
errors = {}
for name in ("logsumexp", "logcumsumexp"):
    exact = slope(name, x.double())
    errors[name] = float((slope(name, x) - exact).abs().max() / exact.abs().max())
print("torch", torch.__version__)
print("expected errors below 1e-5 of the largest, found", errors)
sys.exit(0 if errors["logsumexp"] < 1e-5 < 1e-4 < errors["logcumsumexp"] else 1)
PY
