#!/bin/sh
# MLX 0.32.4: `mx.exp` of float64 is computed in float32: the exponential of 89 is inf, that of -104 is 0.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' 'numpy==2.4.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import math

import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
print("mlx 0.32.4, CPU: functions of float64 numbers, whose results are float64 arrays; the largest relative error.")
x = np.linspace(0.01, 3, 1000)
exact = {
    "exp": np.exp, "sin": np.sin, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "erf": np.vectorize(math.erf),
    "log": np.log, "tanh": np.tanh, "sqrt": np.sqrt, "expm1": np.expm1,
}  # fmt: skip
off = {}
for name, function in exact.items():
    y = getattr(mx, name)(mx.array(x, dtype=mx.float64))
    assert y.dtype == mx.float64
    off[name] = float(np.abs(np.array(y) / function(x) - 1).max())
print("  " + ", ".join(f"{name} {error:.0e}" for name, error in off.items()))
large, small = (mx.exp(mx.array(value, dtype=mx.float64)).item() for value in (89.0, -104.0))
print(f"  exp(89) is {large}, NumPy {np.exp(89.0):.3g}; exp(-104) is {small}, NumPy {np.exp(-104.0):.3g}")
scores = np.array([0.0, -50.0, -104.0, -200.0])
softmax = np.array(mx.softmax(mx.array(scores, dtype=mx.float64)))
print(f"  softmax of {scores.tolist()}: {softmax.tolist()}")
print("One half of the functions has 7 digits and the range of float32, the other 16 digits. So attention, softmax and")
print("activations in float64 are no reference for the same in float32. The documentation says only that float64 is for")
print("the CPU.")
single, double = ("exp", "sin", "sigmoid", "erf"), ("log", "tanh", "sqrt", "expm1")
rounded = all(off[name] > 1e-8 for name in single) and all(off[name] < 1e-14 for name in double)
raise SystemExit(0 if rounded and large == math.inf and small == 0 and softmax[2] == 0 else 1)
PY
