#!/bin/sh
# safetensors 0.8.0: a transposed MLX or NumPy array is saved with its numbers in the wrong places, without a word.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
for version in 0.7.0 0.8.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "safetensors==$version" 'mlx[cpu]==0.32.4' \
        'numpy==2.4.4' >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }
done
cat >"$work/transposed.py" <<'PY'
import sys

import mlx.core as mx
import numpy as np
import safetensors
from safetensors.mlx import load as load_mlx
from safetensors.mlx import save as save_mlx
from safetensors.numpy import load, save

x = np.arange(6, dtype=np.float32).reshape(2, 3)
transposed = load(save({"x": x.T}))["x"].tolist()
columns = load(save({"x": x[:, :2]}))["x"].tolist()
of_mlx = load_mlx(save_mlx({"x": mx.array(x).T}))["x"].tolist()
right = transposed == of_mlx == x.T.tolist() and columns == x[:, :2].tolist()
print(f"safetensors {safetensors.__version__}: x is {x.tolist()}; saved and loaded again")
print(f"  x.T of NumPy  {transposed}")
print(f"  x.T of MLX    {of_mlx}")
print(f"  x[:, :2]      {columns}")
print("  right" if right else f"  not {x.T.tolist()} and {x[:, :2].tolist()}: shapes are kept, numbers are in the order of x")
raise SystemExit(right != (sys.argv[1] == "right"))
PY
"$work/0.7.0/bin/python" "$work/transposed.py" right
"$work/0.8.0/bin/python" "$work/transposed.py" wrong
echo "The documentation asks for contiguous arrays; PyTorch tensors that are not raise an error, and MLX arrays show nobody"
echo "whether they are. 0.7.0 copied the numbers in order; 0.8.0 takes the memory as it lies there."
