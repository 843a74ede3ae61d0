#!/usr/bin/env bash
# torch 2.13.0 on a CPU (2026-11-29): torch.export drops what the forward of a submodule assigns to a buffer.
#
# A buffer that forward changes is part of what a module does (running statistics, counters). Where the
# exported module itself assigns one (`self.total = self.total + ...`), the exported program does so, too;
# where a module inside of it does, in an nn.Sequential for instance, the change is lost without a
# warning: the buffer stays as it was. Written in place (`self.total.add_(...)`) it is kept in both.
#
# What gpubp does about it: `gpubp.torch` refuses attributes that forward sets, with the line; tests/oracle
# has the case.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" -W error::UserWarning - <<'PY'
import sys

import torch


class Counter(torch.nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("total", torch.zeros(2))

    def forward(self, x):
        if self.in_place:
            self.total.add_(x.sum(0))
        else:
            self.total = self.total + x.sum(0)
        return x * 2


def total(model):
    model(torch.ones(3, 2))
    return [buffer.tolist() for buffer in model.buffers()][0]


def exported(model):
    return total(torch.export.export(model, (torch.ones(3, 2),)).module())


inside = torch.nn.Sequential
eager = total(inside(Counter(False)))
itself, in_place, lost = (
    exported(model) for model in (Counter(False), inside(Counter(True)), inside(Counter(False)))
)
print("torch", torch.__version__, "eager", eager, "exported: itself", itself, end="; ")
print("inside, in place", in_place, "inside, assigned", lost)
sys.exit(0 if eager == itself == in_place == [3, 3] and lost == [0, 0] else 1)
PY
