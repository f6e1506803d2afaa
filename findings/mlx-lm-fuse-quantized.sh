#!/bin/sh
# mlx-lm 0.32.2: fused into weights of 4 bits, most of a LoRA adapter is lost, below changes three times as large.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mlx-lm==0.32.2 'mlx[cpu]==0.32.4' transformers==5.24.0 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - 2>"$work/log" <<'PY' || { cat "$work/log" >&2; exit 1; }
import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear

mx.set_default_device(mx.cpu)
mx.random.seed(0)
linear = nn.Linear(512, 512, bias=False)
linear.weight = mx.random.normal((512, 512)) * 0.02


def plain(layer):
    if not isinstance(layer, nn.QuantizedLinear):
        return layer.weight
    return mx.dequantize(layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits)


def fused(bits, size):
    """Of what fuse() changes: the part that is the adapter's, how large the rest is, and the same with dequantize."""
    base = nn.QuantizedLinear.from_linear(linear, 64, bits)
    layer = LoRALinear.from_base(base, r=8)
    weight = plain(base)
    b = mx.random.normal((8, 512))
    added = (layer.scale * b.T) @ layer.lora_a.T
    b = b * (size * mx.linalg.norm(weight) / mx.linalg.norm(added))
    layer.lora_b, added = b, (layer.scale * b.T) @ layer.lora_a.T
    found = []
    for dequantize in (False, True):
        change = plain(layer.fuse(dequantize=dequantize)) - weight
        kept = ((change * added).sum() / (added * added).sum()).item()
        found.append((kept, (mx.linalg.norm(change - kept * added) / mx.linalg.norm(added)).item()))
    return found


print("mlx-lm 0.32.2, mlx 0.32.4, CPU: a quantised nn.Linear with an adapter of rank 8, and what LoRALinear.fuse makes of it.")
seen = {}
for bits in (4, 8):
    for size in (0.003, 0.01, 0.03, 0.1):
        seen[bits, size] = fused(bits, size)
        (kept, noise), (whole, rest) = seen[bits, size]
        print(f"  {bits} bits, adapter {size:5.1%} of the weights: {kept:4.0%} of it arrives, with other changes {noise:5.2f} times as "
              f"large; dequantised {whole:.0%}, {rest:.2f}")
base = nn.QuantizedLinear.from_linear(linear, 64, 4)
twice = mx.dequantize(*mx.quantize(plain(base), 64, 4), 64, 4)
again = (mx.linalg.norm(twice - plain(base)) / mx.linalg.norm(plain(base))).item()
print(f"  the same weights quantised, dequantised and quantised again, without an adapter: {again:.1%} off")
print("`mlx_lm.fuse` quantises the sum afresh, and in 4 bits a step is larger than what an adapter adds. Weights that are on")
print("the grid already do not stay there: a group's new range gives another grid. So a fused QLoRA can answer as if it had")
print("not been trained; `--adapter-path` and `mlx_lm.fuse --dequantize` are right.")
(small, other), (whole, rest) = seen[4, 0.01]
right = all(abs(kept - 1) < 0.01 and noise < 0.01 for _, (kept, noise) in seen.values())
raise SystemExit(0 if right and small < 0.5 and other > 2 and again > 0.02 and seen[8, 0.03][0][0] > 0.9 else 1)
PY
