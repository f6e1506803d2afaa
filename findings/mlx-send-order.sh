#!/bin/sh
# MLX 0.32.4: of two messages that one `mx.eval` sends, the second goes first.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/ranks.py" <<'PY'
import mlx.core as mx

group = mx.distributed.init()
if group.rank() == 0:
    first, second = (mx.distributed.send(mx.full((4,), number), 1) for number in (1.0, 2.0))
    mx.eval(first, second)
else:
    received = []
    for _ in range(2):
        received.append(mx.distributed.recv((4,), mx.float32, 0))
        mx.eval(received[-1])
    print("received", *(int(each[0].item()) for each in received), flush=True)
PY

echo "mlx 0.32.4, two processes on one machine, ring backend."
echo "Rank 0 makes send(1) and then send(2), and evaluates both by mx.eval(first, second); rank 1 receives one after the"
echo "other. One would expect 1 2: the documentation of \`send\` says that it is performed when the array is evaluated, and"
echo "that of \`eval\` names no order but that of its arguments."
PATH="$work/venv/bin:$PATH" mlx.launch -n 2 -- "$work/venv/bin/python" "$work/ranks.py" </dev/null >"$work/said" 2>&1 || true
grep received "$work/said" || { cat "$work/said" >&2; exit 1; }
echo "So a message and the answer to it cannot be evaluated together unless the answer is named first, and arrays that both"
echo "sides send and receive have to be evaluated in the same order on both, or each by itself."
grep -q "received 2 1" "$work/said"
