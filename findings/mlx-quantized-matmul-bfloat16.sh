#!/bin/sh
# MLX 0.32.4: on the CPU `mx.quantized_matmul` adds up in the type of its input: 4,096 ones in bfloat16 are 256.
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
width = 4096
print(f"mlx 0.32.4, CPU: one row times a matrix with rows of {width:,} numbers, quantised to 4 bits in groups of 64.")
ones, far = {}, {}
for dtype in (mx.float32, mx.float16, mx.bfloat16):
    packed = mx.quantize(mx.ones((32, width), dtype=dtype), 64, 4)
    ones[dtype] = mx.quantized_matmul(mx.ones((1, width), dtype=dtype), *packed, True, 64, 4)[0, 0].item()
    rng = np.random.RandomState(0)
    x, w = (mx.array(rng.normal(0, 1, shape).astype(np.float32)).astype(dtype) for shape in ((1, width), (512, width)))
    packed = mx.quantize(w, 64, 4)
    plain = mx.dequantize(*packed, 64, 4)
    exact = np.array(x.astype(mx.float32), np.float64) @ np.array(plain.astype(mx.float32), np.float64).T
    off = [
        float(np.sqrt(np.square(np.array(y.astype(mx.float32)) - exact).mean() / np.square(exact).mean()))
        for y in (mx.quantized_matmul(x, *packed, True, 64, 4), x @ plain.T)
    ]
    far[dtype] = off
    print(f"  {str(dtype).split('.')[-1]:8s} all ones: {ones[dtype]:.0f}; normal numbers: {off[0]:.1e} off, "
          f"by dequantize and @ {off[1]:.1e}")
mx4 = mx.quantize(mx.ones((32, width), dtype=mx.bfloat16), mode="mxfp4")
fp4 = mx.quantized_matmul(mx.ones((1, width), dtype=mx.bfloat16), *mx4, mode="mxfp4")[0, 0].item()
print(f"In mxfp4 the same ones are {fp4:.0f}. Plain products in bfloat16 add up in float32.")
ok = ones == {mx.float32: width, mx.float16: 2048, mx.bfloat16: 256} and fp4 == width
raise SystemExit(0 if ok and far[mx.bfloat16][0] > 5 * far[mx.bfloat16][1] else 1)
PY
