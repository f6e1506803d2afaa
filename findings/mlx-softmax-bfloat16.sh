#!/bin/sh
# MLX 0.32.4: on the CPU `mx.softmax` of many numbers in bfloat16 does not sum to 1, but to several times that.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

"$work/venv/bin/python" - <<'PY'
import mlx.core as mx

mx.set_default_device(mx.cpu)


def total(x, **how):
    return mx.softmax(x, axis=-1, **how).astype(mx.float32).sum().item()


logits = mx.random.normal((50_000,), key=mx.random.key(0))
print("mlx 0.32.4, CPU: what the probabilities of 50,000 tokens sum to, with normal logits.")
found = {}
for dtype in (mx.float32, mx.float16, mx.bfloat16):
    x = logits.astype(dtype)
    found[dtype] = total(x), total(x, precise=True)
    print(f"  {str(dtype):19s} {found[dtype][0]:8.4f}, with precise=True {found[dtype][1]:.4f}")
print("The sum that is divided by is kept in the type of the input, where it stops growing, by default. `precise` is")
print("documented as doing the computation in float32; that without it a probability may be ten times too large is not.")
equal = mx.zeros((1000,), dtype=mx.bfloat16)
print(f"  1,000 equal logits in bfloat16: {total(equal):.4f}")
ok = all(abs(precise - 1) < 0.01 for _, precise in found.values()) and abs(found[mx.float32][0] - 1) < 0.01
raise SystemExit(0 if ok and found[mx.bfloat16][0] > 5 and total(equal) > 3 else 1)
PY
