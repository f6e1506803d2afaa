#!/bin/sh
# MLX 0.32.4: `mx.checkpoint` of a function with an output that is a `stop_gradient` gives the gradient of another output.
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
slopes = mx.arange(4.0)


def layer(x):
    return mx.stop_gradient(x), 2 * x


def gradient(run):
    def loss(x):
        kept, y = run(x)
        return (3 * kept).sum() + (slopes * y).sum()

    return mx.grad(loss)(mx.ones((4,))).tolist()


plain, again = gradient(layer), gradient(mx.checkpoint(layer))
print("mlx 0.32.4, CPU: kept, y = stop_gradient(x), 2 x; the gradient in x of sum(3 kept) + sum([0, 1, 2, 3] y).")
print(f"  without mx.checkpoint  {plain}: twice the slopes")
print(f"  with mx.checkpoint     {again}: y got the cotangent 3 of the output before it")
print("The documentation says that a checkpoint computes again and changes nothing else. Without equal shapes it is an")
print("error; with them the gradient is wrong without a word. Adding a zero to such an output avoids it.")
raise SystemExit(0 if (plain, again) == ([0, 2, 4, 6], [6, 6, 6, 6]) else 1)
PY
