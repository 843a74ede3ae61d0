#!/usr/bin/env bash
# torch 2.13.0 (2026-11-30): ProcessGroupGloo.abort() and .shutdown() return, and the other ranks hear nothing of it.
#
# A rank that gives up calls `abort()` (or `shutdown()`) on its process group and goes on with something else. One
# expects that the ranks which wait for it in a collective get an error then, as the connections are closed. They
# stay open: an all-reduce of the other rank fails when the process has ended, here six seconds later.
#
# What gpubp does about it: `gpubp/distributed/gloo_ends.py` lets go of the group itself when a rank leaves, and
# `gpubp/distributed/leaving.py` tells the others why.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat >"$work/rank.py" <<'PY'
import datetime
import sys
import time

import torch
import torch.distributed as dist

rank, port, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
limit = datetime.timedelta(seconds=60)
store = dist.TCPStore("127.0.0.1", port, 2, rank == 0, limit)
group = dist.ProcessGroupGloo(store, rank, 2, limit)
numbers = torch.ones(10)
group.allreduce([numbers]).wait()
begun = time.monotonic()
if rank == 1:
    getattr(group, how)()
    time.sleep(6)
    sys.exit(0)
try:
    group.allreduce([numbers]).wait()
except RuntimeError as error:
    print(f"{how}: {time.monotonic() - begun:.1f} s until {str(error).split('] ')[-1][:60]!r}")
late = time.monotonic() - begun > 4
del group
sys.exit(0 if late else 1)
PY
port=$("$work/venv/bin/python" -c "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])")
for how in abort shutdown; do
    "$work/venv/bin/python" "$work/rank.py" 1 "$port" "$how" &
    "$work/venv/bin/python" "$work/rank.py" 0 "$port" "$how"
    wait
    port=$((port + 1))
done
