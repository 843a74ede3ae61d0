#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): torch.export keeps the forward of an autograd.Function and loses its backward.
#
# A Function whose backward is not the derivative of its forward (a straight-through estimator, a
# reversed gradient) is traced through: the exported program differentiates what forward does. One
# expects the custom gradient, or an error; there is no warning. Here backward says 7, forward x * 2.
#
# What gpubp does about it: `gpubp.torch` looks for such functions itself while a model is exported, and
# refuses them with the line of the program that calls one (gpubp/torch/exporting.py).
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import sys

import torch


class Sevenfold(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * 7


class Model(torch.nn.Module):
    def forward(self, x):
        return Sevenfold.apply(x)


def gradient(model):
    x = torch.ones(2, requires_grad=True)
    model(x).sum().backward()
    return x.grad.tolist()


exported = torch.export.export(Model(), (torch.ones(2, requires_grad=True),)).module()
expected, found = gradient(Model()), gradient(exported)
print("torch", torch.__version__, "expected", expected, "found", found)
sys.exit(0 if expected == [7, 7] and found == [2, 2] else 1)
PY
