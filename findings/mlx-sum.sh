#!/bin/sh
# MLX 0.32.4: on the CPU `mx.sum` adds float32 numbers one after the other: the mean of 40 million ones is 0.42.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' 'numpy==2.4.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

mx.set_default_device(mx.cpu)
print("mlx 0.32.4, CPU, float32; NumPy adds in pairs, in float32 too.")
ones = mx.ones((40_000_000,))
mean = mx.mean(ones).item()
print(f"  mean of 40,000,000 ones: MLX {mean:.4f}, NumPy {np.mean(np.array(ones)):.4f}: the sum stops at 2 ** 24")
tenths = mx.sum(mx.full((10_000_000,), 0.1)).item()
print(f"  10,000,000 times 0.1: MLX {tenths:,.0f}, NumPy {np.full(10_000_000, 0.1, np.float32).sum():,.0f}")
x = np.random.RandomState(0).normal(10_000, 1, 1_000_000).astype(np.float32)
far = mx.mean(mx.array(x)).item(), mx.var(mx.array(x)).item()
print(f"  a million numbers of mean 10,000 and variance 1: MLX {far[0]:,.0f} and {far[1]:,.0f}, NumPy {x.mean():,.0f} and "
      f"{x.var():.3f}")
gradient = mx.random.normal((28_000_000,), key=mx.random.key(0))
_, norm = optim.clip_grad_norm({"embedding": gradient}, 1.0)
short = norm.item() / float(np.sqrt(np.square(np.array(gradient)).sum(dtype=np.float64))) - 1
print(f"  clip_grad_norm of 28 million normal numbers, a table of 49,152 x 576: the norm is {short:.1%} off")
rows = mx.square(gradient).reshape(-1, 1000).sum(axis=-1).sum().item()
print(f"Row by row it is right: {rows / float(np.square(np.array(gradient)).sum(dtype=np.float64)) - 1:.0e} off.")
raise SystemExit(0 if mean < 0.5 and tenths > 1_050_000 and far[1] > 100 and short < -0.02 else 1)
PY
