#!/bin/sh
# MLX 0.32.4: in nvfp4, without `global_scale`, a matrix of small weights becomes zeros: normal ones of 0.001, all of them.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' 'numpy==2.4.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx
import mlx.nn as nn
import numpy as np

mx.set_default_device(mx.cpu)
MODES = ("nvfp4", "mxfp4", "affine")
drawn = np.random.RandomState(0).normal(0, 1, (256, 512)).astype(np.float32)


def off(weight, mode, scale=None):
    """How far a quantised matrix is from what it was, in parts of its size."""
    packed = mx.quantize(weight, mode=mode, global_scale=scale)
    back = mx.dequantize(*packed, mode=mode, global_scale=scale)
    return (mx.linalg.norm(back - weight) / mx.linalg.norm(weight)).item()


print("mlx 0.32.4, CPU: 4 bits, 256 x 512 normal weights of a standard deviation; relative error of the matrix.")
print("  deviation    " + "".join(f"{mode:>9s}" for mode in MODES) + "   nvfp4 with global_scale=max|w|")
seen = {}
for deviation in (1.0, 0.02, 0.01, 0.005, 0.002, 0.001):
    weight = mx.array(drawn * np.float32(deviation))
    seen[deviation] = {mode: off(weight, mode) for mode in MODES}
    seen[deviation]["scaled"] = off(weight, "nvfp4", mx.abs(weight).max())
    row = "".join(f"{seen[deviation][mode]:9.3f}" for mode in MODES)
    print(f"  {deviation:<13g}{row}{seen[deviation]['scaled']:15.3f}")
layer = nn.Linear(512, 256, bias=False)
layer.weight = mx.array(drawn * np.float32(0.001))
model = nn.Sequential(layer)
nn.quantize(model, mode="nvfp4")
output = mx.abs(model(mx.ones((1, 512)))).max().item()
print(f"nn.quantize(model, mode='nvfp4') of such a layer of 0.001: its largest output is {output}, with no warning.")
print("The scale of a group of 16 is an e4m3 number, and those are multiples of 1/512 below 1/64. NVIDIA's format has a")
print("second scale for the matrix; nn.Linear and nn.quantize use none, and `mlx_lm.convert --q-mode nvfp4` calls them.")
print("GPT-2's initialisation draws the output projections of 48 layers with 0.002.")
steady = all(0.08 < errors[mode] < 0.13 for errors in seen.values() for mode in ("mxfp4", "affine", "scaled"))
raise SystemExit(0 if steady and seen[0.002]["nvfp4"] > 0.9 and seen[0.001]["nvfp4"] == 1 and output == 0 else 1)
PY
