#!/bin/sh
# MLX 0.32.4: random arrays that nobody looks at stay in memory, as the keys that they would have been drawn with.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/keys.py" <<'PY'
import gc
import resource

import mlx.core as mx
import mlx.nn as nn


def taken() -> float:
    """Megabytes that this process has in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def grown(evaluated: bool) -> float:
    mx.eval(mx.random.state)
    for _ in range(2_000):  # warm up
        nn.Linear(4, 4)
    mx.eval(mx.random.state)
    before = taken()
    for number in range(50_000):
        nn.Linear(4, 4)
        if evaluated and number % 100 == 0:
            mx.eval(mx.random.state)
    gc.collect()
    mx.clear_cache()
    return taken() - before


looked, not_looked = grown(True), grown(False)
print(f"after 50,000 layers, each forgotten at once, the process has grown by {not_looked:.0f} MB;")
print(f"with mx.eval(mx.random.state) after every hundred by {looked:.0f} MB. MLX counts {mx.get_active_memory():,} bytes.")
raise SystemExit(not_looked < 100 or looked > not_looked / 10)
PY

echo "mlx 0.32.4, on the CPU."
echo "Linear layers are made and forgotten; their weights are lazy and are never computed. One would expect that nothing of"
echo "them is left: the documentation of lazy evaluation recommends to make a model so, to save memory, and to load its"
echo "weights then."
"$work/venv/bin/python" "$work/keys.py"
echo "Each key is split from the one before, so the state is a graph of all draws since it was last asked for. Whoever makes a"
echo "model to load weights into it has that in memory until then; \`mx.get_active_memory\` and \`mx.clear_cache\` do not see it."
