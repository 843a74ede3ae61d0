#!/usr/bin/env bash
# cuda-bindings 13.0.3 with NVRTC 13.0.88 (2026-11-30): reading an empty log changes Python's b" ".
#
# The bindings write results into a bytes object that the caller has made, and take one that cannot
# change without a word; published programs, NVIDIA's among them, make it as b" " * size. A source
# that compiles cleanly has a log of one byte, its final zero. b" " * 1 is the interpreter's only
# b" ", so from then on bytes([32]) is b"\0", and print puts zero bytes between its arguments: in a
# file, a pipe, a test that compares output. It needs no GPU and no driver, and nothing fails.
# One program has been reported for it (NVIDIA-NeMo/Speech, issue 15790); the bindings are as they were.
#
# What gpubp does about it: buffers are bytearrays, which the bindings take as well; a test looks.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check cuda-bindings==13.0.3 nvidia-cuda-nvrtc==13.0.88
"$work/venv/bin/python" - <<'PY'
import sys

from cuda.bindings import nvrtc

_, program = nvrtc.nvrtcCreateProgram(b"__global__ void nothing() {}", b"nothing.cu", 0, [], [])
nvrtc.nvrtcCompileProgram(program, 0, [])
_, size = nvrtc.nvrtcGetProgramLogSize(program)
log = bytearray(size)
nvrtc.nvrtcGetProgramLog(program, log)
kept = bytes([32])[0] == 32
log = b" " * size
nvrtc.nvrtcGetProgramLog(program, log)
found = list(bytes([32]))
sys.stdout.write(f"log of {size} byte; a bytearray leaves bytes([32]) alone: {kept}\n")
sys.stdout.write(f"expected bytes([32]) to hold [32], found {found}\n")
sys.exit(0 if size == 1 and found == [0] else 1)
PY
