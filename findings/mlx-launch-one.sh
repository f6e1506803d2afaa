#!/bin/sh
# MLX 0.32.4: a script that runs by `mlx.launch -n 2`, and without a launcher, ends in a JSON error by `mlx.launch -n 1`.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cat >"$work/size.py" <<'PY'
import mlx.core as mx

try:
    print("a group of", mx.distributed.init().size())
except RuntimeError as error:
    print("RuntimeError:", str(error)[:40])
PY
python="$work/venv/bin/python"
port=$("$python" -c 'import socket; one = socket.socket(); one.bind(("127.0.0.1", 0)); print(one.getsockname()[1])')
launch() {
    "$work/venv/bin/mlx.launch" --backend ring -p "$port" -n "$1" --python "$python" -- "$work/size.py" </dev/null
}

echo "mlx 0.32.4: what mx.distributed.init() gives, which is documented to return a group of one process where no"
echo "backend is available (strict=False)."
alone=$("$python" "$work/size.py")
two=$(launch 2 | sort -u)
one=$(launch 1)
echo "  python size.py         $alone"
echo "  mlx.launch -n 2        $two"
echo "  mlx.launch -n 1        $one"
echo "For one host the launcher writes an empty file of hosts, and names it in MLX_HOSTFILE, which the ring reads as"
echo "JSON. Unset the variable, or do not call init, where the file is empty."
[ "$alone" = "a group of 1" ] && [ "$two" = "a group of 2" ] || exit 1
case $one in RuntimeError:*json*) exit 0 ;; *) exit 1 ;; esac
