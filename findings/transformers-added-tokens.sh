#!/bin/sh
# A tokenizer.json without `added_tokens` is one for tokenizers, and a KeyError for transformers.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.24.0 tokenizers==0.23.2 \
    >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 1; }

cd "$work"
mkdir folder
venv/bin/python - 2>/dev/null <<'PY'
import json
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer

model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "<unk>": 2}, "unk_token": "<unk>"}
Path("folder/tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
Path("folder/tokenizer_config.json").write_text("{}")
print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}")
plain = tokenizers.Tokenizer.from_file("folder/tokenizer.json").encode("a").ids
print("  tokenizers reads a tokenizer.json without `added_tokens`, and writes an empty list itself:", plain)
try:
    AutoTokenizer.from_pretrained("folder")
    found = "reads it too"
except Exception as error:
    found = f"{type(error).__name__}: {error}"
print("  transformers:", found)
Path("folder/tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model, "added_tokens": []}))
print("  with `added_tokens: []` it gives", AutoTokenizer.from_pretrained("folder").encode("a"))
raise SystemExit(0 if found == "KeyError: 'added_tokens'" and plain == [0] else 1)
PY
