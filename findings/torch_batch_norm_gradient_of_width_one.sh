#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-30): all gradients of BatchNorm2d are wrong for a transposed image
# of width 1.
#
# Sequences (N, L, C) become images by .transpose(1, 2).unsqueeze(-1), of strides (L C, 1, C, 1). With
# width 1 that is contiguous in the order of channels last, and the output is right. The cotangent
# that comes back from a reshape is contiguous in the usual order; the backward pass seems to read
# one of the two as if it lay like the other (its source was not looked at). The gradient of the bias should be the sum of the cotangent
# over all but channels, and is another number; those of weight and input are wrong too. No error,
# no warning; .contiguous() in front of the layer makes all three right.
#
# What gpubp does about it: strides are part of each operand, and results do not depend on them;
# a test holds this very case (tests/test_nn_backends.py).
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch

torch.manual_seed(0)
sequences = torch.randn(2, 4, 3, dtype=torch.float64)
weights = torch.arange(12.0, dtype=torch.float64)


def gradients(images):
    images = images.detach().requires_grad_(True)
    layer = torch.nn.BatchNorm2d(3).double()
    (layer(images).reshape(2, -1) @ weights).sum().backward()
    return layer.bias.grad, layer.weight.grad, images.grad


images = sequences.transpose(1, 2).unsqueeze(-1)
found, right = gradients(images), gradients(images.contiguous())
expected = 2 * weights.reshape(3, 4).sum(1)
print("torch", torch.__version__, "strides", images.stride())
print("gradient of the bias: expected", expected.tolist(), "found", found[0].tolist())
print("after .contiguous():", right[0].tolist())
wrong = [float((a - b).abs().max()) for a, b in zip(found, right)]
print("bias, weight and input are off by", [round(w, 2) for w in wrong])
sys.exit(0 if torch.equal(right[0], expected) and min(wrong) > 0.1 else 1)
PY
