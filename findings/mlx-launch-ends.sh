#!/bin/sh
# MLX 0.32.4: `mlx.launch` succeeds when what it launched has failed, and leaves it running when it is terminated itself.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

PATH="$work/venv/bin:$PATH" "$work/venv/bin/python" - <<'PY'
import os
import signal
import subprocess
import sys
import time

print("mlx 0.32.4, mlx.launch on one machine, ring backend.")
failed = subprocess.run(
    ["mlx.launch", "-n", "2", "--", sys.executable, "-c", "raise SystemExit(3)"],
    stdin=subprocess.PIPE, capture_output=True, text=True,
)
print("Both processes exit with 3. One would expect another exit code than 0, as of mpirun, torchrun or srun:")
print(f"  exit code {failed.returncode}; a script with `set -e`, make and CI go on")

quiet = "import os, time; print(os.getpid(), flush=True); time.sleep(15)"
launcher = subprocess.Popen(
    ["mlx.launch", "-n", "2", "--", sys.executable, "-c", quiet],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
)
pids = [int(launcher.stdout.readline()) for _ in range(2)]
launcher.send_signal(signal.SIGTERM)
launcher.wait()
time.sleep(2)


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


left = [pid for pid in pids if lives(pid)]
print("`kill` (SIGTERM) of mlx.launch while its two processes sleep. Expected, by the documentation (Launching Distributed")
print('Programs): it "terminates the rest if one of them fails unexpectedly or if mlx.launch is terminated":')
print(f"  {len(left)} of 2 still run two seconds later, with no parent that would end them")
for pid in left:
    os.kill(pid, signal.SIGKILL)
raise SystemExit(0 if failed.returncode == 0 and len(left) == 2 else 1)
PY
