#!/bin/sh
# MLX 0.32.4: Adam's second moment never falls in bfloat16, where 0.999 is 1: one large gradient makes all later steps small.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx
import mlx.optimizers as optim

mx.set_default_device(mx.cpu)


def run(dtype, first, steps=5000):
    """The second moment, and how far a weight moves in the last step of 5,000 with gradients of 0.01."""
    optimizer = optim.AdamW(1.0, weight_decay=0.0)
    for step in range(steps):
        gradient = mx.array([first if step == 0 else 0.01], dtype=dtype)
        moved = optimizer.apply_gradients({"w": gradient}, {"w": mx.zeros((1,), dtype=dtype)})["w"]
        mx.eval(moved, optimizer.state)
    return optimizer.state["w"]["v"].item(), -moved.item()


print("mlx 0.32.4, CPU: AdamW with the default betas, 5,000 gradients of 0.01; learning rate 1, so that a step is near 1.")
seen = {}
for name in ("float32", "bfloat16"):
    for first in (0.01, 10.0):
        seen[name, first] = run(getattr(mx, name), first)
        moment, step = seen[name, first]
        print(f"  {name:8s} first gradient {first:5g}: second moment {moment:.2e}, last step {step:.3f}")
factor = (mx.array(0.7, dtype=mx.bfloat16) * 0.999 == mx.array(0.7, dtype=mx.bfloat16)).item()
print(f"A Python number takes the type of the array: x * 0.999 is x in bfloat16 ({factor} for 0.7), so the moment only")
print("grows, until what is added is lost too. The state of an optimizer has the type of the weights: so it is in")
print("`mlx_lm.lora --fine-tune-type full` of a model in bfloat16; LoRA's own weights are float32. PyTorch's AdamW does not")
print("forget in bfloat16 either, by rounding the products. With a beta of 0.99 the moment falls.")
kept, spiked = seen["bfloat16", 0.01], seen["bfloat16", 10.0]
right = 0.9 < seen["float32", 0.01][1] < 1.1 and seen["float32", 10.0][1] > 0.3
raise SystemExit(0 if right and kept[1] > 1.5 and spiked[0] > 0.09 and spiked[1] < 0.05 and factor else 1)
PY
