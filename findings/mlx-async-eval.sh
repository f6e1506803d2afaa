#!/bin/sh
# MLX 0.32.4: on the CPU `mx.async_eval` returns when all but about the last fifty operations are computed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/waits.py" <<'PY'
import statistics
import time

import mlx.core as mx

mx.set_default_device(mx.cpu)
W = mx.random.normal((256, 256)) / 16
mx.eval(W)


def waited(operations: int) -> float:
    """The share of the whole time after which `async_eval` has returned; the median of nine."""
    shares = []
    for _ in range(9):
        y = mx.ones((256, 256))
        for _ in range(operations):
            y = y @ W
        start = time.perf_counter()
        mx.async_eval(y)
        returned = time.perf_counter() - start
        mx.eval(y)
        shares.append(returned / (time.perf_counter() - start))
    return statistics.median(shares)


found = {operations: waited(operations) for operations in (20, 50, 100, 200, 500, 1000)}
for operations, share in found.items():
    print(f"{operations:5} products one after the other: it returns after {100 * share:3.0f} % of the time")
raise SystemExit(found[50] > 0.2 or found[200] < 0.5 or found[1000] < 0.8)
PY

echo "mlx 0.32.4, on the CPU."
echo "\`mx.async_eval\` is documented to evaluate asynchronously: one would expect that it returns at once, however long the"
echo "graph is, so that a program can make the next one meanwhile, as mlx_lm's generate_step does with the next token."
"$work/venv/bin/python" "$work/waits.py"
echo "About fifty operations may be on their way; a call with more waits for them. A token of a model with 30 layers is"
echo "about 500 operations: generate_step has nine tenths of a token computed before Python goes on with the next, whose graph"
echo "is then made while little is left to compute. To measure such a call is to measure the computation."
