#!/bin/sh
# MLX 0.32.4: on the CPU `mx.arange` adds its step again and again: in float32 the last of 0, 0.1, … 99,999.9 is 100,958.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' 'numpy==2.4.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
print("mlx 0.32.4, CPU: the last number of a range, which is start + (count - 1) * step.")
ours, numpys = mx.arange(0, 100_000, 0.1), np.arange(0, 100_000, 0.1, dtype=np.float32)
print(f"  arange(0, 100000, 0.1) in float32, {ours.size:,} numbers: MLX {ours[-1].item():,.1f}, NumPy {numpys[-1]:,.1f}")
half = mx.arange(1000, dtype=mx.bfloat16)[-1].item()
cast = mx.arange(1000).astype(mx.bfloat16)[-1].item()
print(f"  arange(1000) in bfloat16: MLX {half:.0f}, the same in integers and then cast {cast:.0f}")
short = float(np.abs(np.array(mx.arange(0, 1000, 0.1)) - np.arange(0, 1000, 0.1)).max())
print(f"  largest error of arange(0, 1000, 0.1) in float32: {short:.3f}, or {short / 0.1:.0%} of a step")
line = mx.linspace(0, 99_999.9, 1_000_000)[-2].item()
print(f"mx.linspace multiplies, and is right: {line:,.1f}. Ranges of integers are, too.")
ok = ours.size == numpys.size == 1_000_000 and ours[-1].item() > 100_900 and abs(numpys[-1] - 99_999.9) < 0.1
raise SystemExit(0 if ok and half == 256 and cast == 1000 and abs(line - 99_999.8) < 0.1 else 1)
PY
