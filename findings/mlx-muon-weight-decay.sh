#!/bin/sh
# MLX 0.32.4: weight decay in `Muon` has no strength, 0.01 and 100 are the same step, even where the gradient is zero.
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
RATE = 0.02
draws = np.random.RandomState(0)
weight = mx.array(draws.normal(0, 0.02, (256, 256)).astype(np.float32))
gradient = mx.array(draws.normal(0, 1, (256, 256)).astype(np.float32))


def step(gradient, decay):
    """What the first step changes."""
    made = optim.Muon(RATE) if decay is None else optim.Muon(RATE, weight_decay=decay)
    return made.apply_gradients({"w": gradient}, {"w": weight})["w"] - weight


def along(one, other):
    return ((one * other).sum() / mx.linalg.norm(one) / mx.linalg.norm(other)).item()


print(f"mlx 0.32.4, CPU: one step of Muon, learning rate {RATE}, a 256 x 256 matrix of normal weights of 0.02.")
print("AdamW, torch.optim.Muon and Muon's own authors multiply the weights by 1 - rate * decay, apart from the step.")
still = {decay: step(mx.zeros_like(weight), decay) for decay in (0.01, 1.0, 100.0)}
sizes = {decay: (mx.linalg.norm(change) / mx.linalg.norm(weight)).item() for decay, change in still.items()}
print("A gradient of zero: how much of the matrix one step takes away")
print("  " + ", ".join(f"decay {decay:g}: {size:.0%} (expected {RATE * decay:.2%})" for decay, size in sizes.items()))
print("A step of Muon does not depend on the size of the gradient; the cosine of the step with that without decay:")
cosines = {}
for size in (1.0, 1e-3, 1e-4, 1e-5):
    cosines[size] = along(step(gradient * size, None), step(gradient * size, 0.0))
    print(f"  gradients of {size:g}, the default decay of 0.01: {cosines[size]:.2f}")
print("The decay is added to the gradient (\"L2 penalty\") before that is made orthogonal, which throws its size away. Where")
print("gradients are small or clipped, weights go to zero instead of down the slope; so with `mlx_lm.lora --optimizer muon`.")
same = max(sizes.values()) - min(sizes.values()) < 0.01 and min(sizes.values()) > 0.05
raise SystemExit(0 if same and cosines[1.0] > 0.99 and cosines[1e-5] < 0.2 else 1)
PY
