#!/bin/sh
# MLX 0.32.4: arrays that are changed in place are copied as a whole once steps are evaluated with `mx.async_eval`.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/decodes.py" <<'PY'
import mlx.core as mx

mx.set_default_device(mx.cpu)
LAYERS, HEADS, TOKENS, WIDTH = 8, 4, 16384, 64


def decode(ahead, steps=20):
    """MiB beyond what was there before, at the most, while tokens go into caches and attend to them."""
    caches = [mx.zeros((1, HEADS, TOKENS, WIDTH)) for _ in range(LAYERS)]
    x = mx.ones((1, HEADS, 1, WIDTH))
    mx.eval(caches, x)
    mx.reset_peak_memory()
    before, last = mx.get_active_memory(), None
    for step in range(steps):
        for cache in caches:
            cache[..., step : step + 1, :] = x
            x = (x @ cache.swapaxes(-1, -2)) @ cache * 1e-6
        if ahead:  # as mlx_lm's generate_step does: this step is on its way before the last one is waited for
            mx.async_eval(x)
            if last is not None:
                mx.eval(last)
            last = x
        else:
            mx.eval(x)
    mx.eval(x)
    return (mx.get_peak_memory() - before) / 2**20


size = LAYERS * HEADS * TOKENS * WIDTH * 4 / 2**20
found = {}
for ahead in (False, True):
    found[ahead] = sorted(decode(ahead) for _ in range(3))[1]
    how = "the next step on its way" if ahead else "step by step"
    print(f"{how:24}: {found[ahead]:6.1f} MiB beside {size:.0f} MiB of caches")
raise SystemExit(not (found[False] < size / 20 and found[True] > size / 4))
PY

echo "mlx 0.32.4, on the CPU."
echo "\`cache[..., i : i + 1, :] = x\` changes the memory of \`cache\` where nobody else holds it, which is what makes"
echo "caches of keys and values cheap. Evaluating a step ahead (\`mx.async_eval\`) should hide the time of making it."
"$work/venv/bin/python" "$work/decodes.py"
echo "Until attention of the step before has run, it holds the caches, so the step that comes behind it copies every"
echo "one of them to write one token. Nothing in the program differs but when results are waited for."
