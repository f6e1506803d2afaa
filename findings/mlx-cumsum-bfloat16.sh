#!/bin/sh
# MLX 0.32.4: the last number of `mx.cumsum` is not `mx.sum` in bfloat16; it stops growing at 256.
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
ones = mx.ones((4096,), dtype=mx.bfloat16)
total = mx.sum(ones).item()
running = mx.cumsum(ones)[-1].item()
means = [mx.mean(ones).item(), running / 4096]
print("mlx 0.32.4, CPU: 4,096 ones in bfloat16.")
print(f"  mx.sum        {total:.0f}: the sum is kept in float32 and rounded once")
print(f"  mx.cumsum[-1] {running:.0f}: every partial sum is rounded to 8 bits, and 256 + 1 is 256 again")
print("Positions, masks and document ids made by cumsum in a model's own type stand still after 256 tokens; cast to")
print("float32 or to integers first.")
half = mx.cumsum(mx.ones((4096,), dtype=mx.float16))[-1].item()
print(f"  float16, which counts to 2,048: {half:.0f}")
raise SystemExit(0 if (total, running, half) == (4096, 256, 2048) else 1)
PY
