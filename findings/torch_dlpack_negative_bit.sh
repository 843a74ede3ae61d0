#!/usr/bin/env bash
# torch 2.13.0, NumPy 2.4.6 (2026-11-28): DLPack and the negative bit.
#
# The imaginary part of a conjugate is a view whose numbers in memory have the other sign; torch keeps
# that in a bit (`is_neg()`). For the conjugate bit `__dlpack__` raises. One expects the same, or a
# copy with the sign resolved, for the negative bit.
# What happens: the view is exported as it lies in memory, so NumPy reads every number with the wrong
# sign, without a word. (`tensor.numpy()` refuses such a view and names `resolve_neg()`.)
#
# What gpubp does about it: `gpubp.core.interop.require_signed` refuses such tensors.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import torch

z = torch.tensor([1 + 2j, 3 - 4j])
view = z.conj().imag  # -2, 4
print("torch", torch.__version__, "numpy", np.__version__, "is_neg:", view.is_neg())
try:
    z.conj().__dlpack__()
    conjugate = "exported"
except Exception as err:
    conjugate = type(err).__name__
try:
    found = np.from_dlpack(view).tolist()
except Exception as err:
    found = type(err).__name__
print("expected from the view  :", view.resolve_neg().tolist(), "or an error")
print("got by NumPy's from_dlpack:", found, "; from a conjugate:", conjugate)
sys.exit(0 if found == [2.0, -4.0] else 1)
PY
