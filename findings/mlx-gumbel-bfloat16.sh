#!/bin/sh
# MLX 0.32.4: `mx.random.gumbel` in bfloat16 gives nothing above 5.54, while normal and Laplace numbers keep their tails.
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
count = 4_000_000
largest = {}
print(f"mlx 0.32.4, CPU: the largest of {count:,} random numbers.")
for name in ("normal", "laplace", "gumbel"):
    draw = getattr(mx.random, name)
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        largest[name, dtype] = draw((count,), dtype=dtype, key=mx.random.key(7)).max().item()
    row = ", ".join(f"{str(dtype).split('.')[-1]} {value:.2f}" for (n, dtype), value in largest.items() if n == name)
    print(f"  {name:8s} {row}")
above = (mx.random.gumbel((count,), key=mx.random.key(7)) > 5.54).astype(mx.float32).mean().item()
print(f"Normal and Laplace numbers are drawn in float32 and rounded at the end, Gumbel numbers are made out of uniform ones")
print(f"in bfloat16, the largest of which is 0.996. {above:.2%} of them should be larger: with argmax(logits + gumbel) in")
print("bfloat16 an improbable token is never drawn. mx.random.categorical draws in float32 whatever its logits are.")
full, half = largest["gumbel", mx.float32], largest["gumbel", mx.bfloat16]
kept = all(abs(largest[n, mx.bfloat16] - largest[n, mx.float32]) < 0.2 for n in ("normal", "laplace"))
raise SystemExit(0 if kept and full > 13 and half < 5.6 and above > 0.003 else 1)
PY
