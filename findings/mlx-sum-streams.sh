#!/bin/sh
# MLX 0.32.4: sums over processes on two streams are added to each other.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/ranks.py" <<'PY'
import time

import mlx.core as mx

rank = mx.distributed.init().rank()
with mx.stream(mx.new_stream(mx.cpu)):
    tens = mx.full((1_000_000,), 10.0)
    for _ in range(300 * rank):  # rank 1 gets to its sum later
        tens = mx.sin(tens) * 0 + 10
    tens = mx.distributed.all_sum(tens[:4])
    mx.async_eval(tens)
time.sleep(0.5 * (1 - rank))
ones = mx.distributed.all_sum(mx.ones(4))
mx.eval(ones)
print(f"rank {rank}: 10 + 10 is {tens.tolist()}, 1 + 1 is {ones.tolist()}", flush=True)
PY

echo "mlx 0.32.4, two processes on one machine, ring backend."
echo "Both sum tens on a stream of their own, by mx.async_eval, and then ones on the default stream. One would expect 20 and 2:"
echo "the documentation says that \`all_sum\` sums the arrays \`x\` of all processes, and of two streams that operations on them"
echo "run at the same time, not that they get each other's arrays. There is no error."
PATH="$work/venv/bin:$PATH" mlx.launch -n 2 -- "$work/venv/bin/python" "$work/ranks.py" </dev/null >"$work/said" 2>&1 || true
grep -o 'rank .: 10.*' "$work/said" | sort >"$work/sums"
cat "$work/sums"
echo "mlx-lm's generators have a stream of their own and compute a token ahead. So the first sum after \`generate_step\` of a"
echo "model that is shared by processes may be wrong; \`mx.synchronize(generation_stream)\` before it helps."
[ "$(wc -l <"$work/sums")" = 2 ] || { cat "$work/said" >&2; exit 1; }
grep -qv '1 + 1 is \[2.0, 2.0, 2.0, 2.0\]' "$work/sums"
