#!/bin/sh
# MLX 0.32.4 writes safetensors whose numbers begin at addresses that their type cannot have.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'mlx[cpu]==0.32.4' safetensors==0.8.0 numpy==2.4.6 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cd "$work"
venv/bin/python - <<'PY'
import json
import struct

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

SIZES = {"F32": 4, "U8": 1}


def misplaced(name):
    """The tensors of a file whose first byte is not at a multiple of the size of their numbers."""
    data = open(name, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    starts = {key: 8 + length + entry["data_offsets"][0] for key, entry in header.items()}
    wrong = [key for key in sorted(starts) if starts[key] % SIZES[header[key]["dtype"]]]
    print(f"  {name}: float32 at no multiple of 4:", ", ".join(f"{key} at {starts[key]}" for key in wrong) or "none")
    return wrong


print("mlx 0.32.4 and safetensors 0.8.0 write the same tensors: eight float32 vectors, eight of 3 bytes.")
tensors = {f"w{n}": np.ones(3, np.float32 if n % 2 else np.uint8) for n in range(16)}
save_file(tensors, "rust.safetensors")
mx.save_safetensors("mlx", {key: mx.array(value) for key, value in tensors.items()})
one, other = misplaced("rust.safetensors"), misplaced("mlx.safetensors")
print("safetensors sorts tensors by the size of their numbers, so that a file mapped into memory can be used as it is.")
print("MLX pads its header alike, but writes tensors in the order of a hash table: in a checkpoint of mixed types,")
print("a reader that casts mapped memory to float32 gets addresses that are no multiple of 4. MLX and safetensors")
print("themselves copy and do not mind.")
print(f"misplaced float32 tensors: safetensors {len(one)}, MLX {len(other)}")
raise SystemExit(0 if not one and other else 1)
PY
