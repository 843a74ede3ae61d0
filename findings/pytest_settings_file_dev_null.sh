#!/usr/bin/env bash
# pytest 9.2.0 (2026-11-28): `-c /dev/null` is refused.
#
# `-c /dev/null` is a known way to run somebody else's tests without the settings of the folder one
# stands in; pytest 8.4.2 takes it. One expects that it goes on working.
# What happens: a usage error (exit status 4) that asks for .cfg, .ini or .toml.
#
# What gpubp does about it: tests that run scikit-learn's own tests write an empty pytest.ini.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'def test_nothing(): pass' >"$work/test_nothing.py"
for version in 8.4.2 9.2.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "pytest==$version"
    status=0
    (cd "$work" && "$version/bin/python" -m pytest -q -c /dev/null --rootdir "$work" test_nothing.py) || status=$?
    echo "pytest $version: expected exit status 0, got $status"
    echo "$status" >"$work/$version.status"
done
[ "$(cat "$work/8.4.2.status")" = 0 ] && [ "$(cat "$work/9.2.0.status")" = 4 ]
