#!/bin/sh
# MLX 0.32.4: `mx.dequantize(..., dtype=mx.float32)` computes in the type of the scales, and only then becomes float32.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' numpy==2.4.4 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/unpacks.py" <<'PY'
import mlx.core as mx
import numpy as np

mx.set_default_device(mx.cpu)
weight = mx.array(np.random.default_rng(0).standard_normal((256, 256)), dtype=mx.float32)
packed, scales, biases = mx.quantize(weight, group_size=32, bits=4)
numbers = (np.array(packed)[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & 15  # eight in a uint32

worst = {}
for dtype in (mx.bfloat16, mx.float16):
    s, b = scales.astype(dtype), biases.astype(dtype)
    found = mx.dequantize(packed, s, b, group_size=32, bits=4, dtype=mx.float32)
    factors, shifts = (np.repeat(np.array(a.astype(mx.float32), dtype=np.float64), 32, axis=1) for a in (s, b))
    exact = numbers.reshape(256, 256) * factors + shifts
    once = np.array(mx.array(exact, dtype=mx.float32).astype(dtype).astype(mx.float32), dtype=np.float64)
    lost, rounded = (np.sqrt(((each - exact) ** 2).mean()) for each in (np.array(found, dtype=np.float64), once))
    own = bool(mx.array_equal(found, found.astype(dtype).astype(mx.float32)))
    wide = mx.dequantize(packed, s.astype(mx.float32), b.astype(mx.float32), group_size=32, bits=4, dtype=mx.float32)
    right = np.abs(np.array(wide, dtype=np.float64) - exact).max()
    print(f"scales of {dtype}: result of {found.dtype}, all of its numbers are numbers of {dtype}: {own}")
    print(f"  off by {lost:.1e} (root mean square); rounded once to {dtype} it would be {rounded:.1e}")
    print(f"  with the same scales as float32: off by {right:.1e} at most")
    worst[dtype] = (own, lost / rounded, right)
raise SystemExit(not all(own and ratio > 1.3 and right < 1e-6 for own, ratio, right in worst.values()))
PY

echo "mlx 0.32.4, on the CPU."
echo "\`mx.dequantize\` takes \`dtype\`, \"the data type of the dequantized output\". Whoever asks for float32 of weights whose"
echo "scales are bfloat16, as those of published models are, expects s q + b to float32's precision."
"$work/venv/bin/python" "$work/unpacks.py"
echo "The product and the sum are rounded to the type of the scales, each by itself, and the result is widened. To compare with"
echo "what packed weights mean, or to convert them, scales and biases have to be made float32 first."
