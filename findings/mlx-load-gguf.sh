#!/bin/sh
# mlx 0.32.4: of a GGUF file `mx.load` decodes every second group of Q4_K wrongly, and leaves out tensors of MXFP4.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' gguf==0.19.0 numpy==2.4.4 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

numbers = np.random.default_rng(0)

# 256 numbers of Q4_K: two halves, 12 bytes with 8 scales and 8 minima of 6 bits, 128 bytes with 4 bits for each number.
half = np.array([0.01, 0.02], np.float16)
scales, minima = numbers.integers(0, 64, (2, 8), dtype=np.uint8)
quants = numbers.integers(0, 16, (8, 32), dtype=np.uint8)
sixths = [*(scales[:4] | (scales[4:] >> 4) << 6), *(minima[:4] | (minima[4:] >> 4) << 6)]
sixths += [*(scales[4:] & 15 | (minima[4:] & 15) << 4)]
nibbles = quants[0::2] | quants[1::2] << 4
block = np.concatenate([half.view(np.uint8), np.array(sixths, np.uint8), nibbles.ravel()])[None]
known = float(half[0]) * scales[:, None] * quants.astype(np.float64) - float(half[1]) * minima[:, None]

writer = GGUFWriter("model.gguf", "llama")
writer.add_tensor("q4_k.weight", block, raw_dtype=GGMLQuantizationType.Q4_K)
experts = quantize(numbers.standard_normal((4, 64), dtype=np.float32), GGMLQuantizationType.MXFP4)
writer.add_tensor("mxfp4.weight", experts, raw_dtype=GGMLQuantizationType.MXFP4)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

found = mx.load("model.gguf")
here = np.array(found["q4_k.weight"].astype(mx.float32)).reshape(8, 32)
other = dequantize(block, GGMLQuantizationType.Q4_K).reshape(8, 32)
errors, reference = (np.abs(of - known).max(1) for of in (here, other))
print(f"mlx {version('mlx')}, gguf {version('gguf')}, numpy {version('numpy')}")
print("expected: numbers rounded to float16, and every tensor or an error; the documentation of mx.load says of formats")
print("          that it does not keep quantised: \"tensors will automatically cast to mx.float16\"")
print(f"seen:     Q4_K, largest number {np.abs(known).max():.2f}; largest error in each group of 32, by mx.load and by gguf")
print("          " + " ".join(f"{error:.3f}" for error in errors))
print("          " + " ".join(f"{error:.3f}" for error in reference))
print(f"          tensors of the file: q4_k.weight, mxfp4.weight; of mx.load: {', '.join(sorted(found))}")
wrong = errors[0::2].max() < 0.02 and errors[1::2].min() > 0.1 and reference.max() < 1e-4
sys.exit(not (wrong and "mxfp4.weight" not in found))
PY
