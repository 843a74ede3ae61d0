#!/usr/bin/env bash
# tensorboardX 2.6.5 (2026-11-30): the second of two writers that are opened in one folder within a second takes the first one's file.
#
# Files of events are named by the second and the host. One expects that two writers in the same folder
# (two short runs, or a run that is cut off and resumed at once) leave two files, which TensorBoard shows
# together. The second writer opens the same name anew: what the first one has written is gone, without
# a warning.
#
# What gpubp does about it: its tracker for TensorBoard gives each file a suffix with nanoseconds;
# tests/test_trackers.py has two runs at once.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tensorboardX==2.6.5 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import pathlib
import sys
import time

import tensorboardX

while time.time() % 1 > 0.3:  # both within one second
    time.sleep(0.01)
for name in ("first", "second"):
    with tensorboardX.SummaryWriter("runs") as writer:
        writer.add_scalar(name, 1.0, 0)
files = list(pathlib.Path("runs").iterdir())
content = b"".join(path.read_bytes() for path in files)
print("tensorboardX", tensorboardX.__version__, "files", len(files), end="; ")
print("first" if b"first" in content else "first is gone", "second" if b"second" in content else "")
sys.exit(0 if len(files) == 1 and b"second" in content and b"first" not in content else 1)
PY
