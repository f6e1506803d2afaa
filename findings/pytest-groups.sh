#!/bin/sh
# With pytest 9.2 and pytest-xdist 3.8, `--dist loadgroup` runs and ignores every group.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"

cat > "$work/test_group.py" <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_member(number, worker_id):
    time.sleep(0.2)
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(worker_id + "\n")
PY

workers() { # workers that ran a member of the group under this version of pytest
    "$work/venv/bin/pip" install --quiet --disable-pip-version-check "pytest==$1" pytest-xdist==3.8.0 >"$work/pip" 2>&1 ||
        { cat "$work/pip" >&2; exit 1; }
    rm -f "$work/seen"
    (cd "$work" && SEEN="$work/seen" venv/bin/python -m pytest -q -p no:cacheprovider --rootdir "$work" -n 2 \
        --dist loadgroup test_group.py) >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    sort -u "$work/seen" | wc -l | tr -d ' '
}

before=$(workers 9.1.1)
after=$(workers 9.2.0)
cat <<TEXT
pytest-xdist 3.8.0, two workers, --dist loadgroup, twelve tests in one group.
A group is documented to run on one worker. pytest-xdist's metadata allows any pytest from 7 on, so both versions
install without a word; under 9.2.0 the group is ignored without an error or a warning, and all tests pass.
workers that ran the group under pytest 9.1.1: $before
workers that ran the group under pytest 9.2.0: $after
TEXT
[ "$before" = 1 ] && [ "$after" = 2 ]
