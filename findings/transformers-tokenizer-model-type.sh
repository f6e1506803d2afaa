#!/bin/sh
# transformers 5.24.0: one tokenizer.json gives other tokens when the `model_type` of the config.json beside it changes.
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
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

# How Llama 3, OLMo 2 and Granite 4 split text: numbers in threes, line breaks together.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
tokenizer = Tokenizer(models.BPE())
split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
tokenizer.train_from_iterator(["in 2024: don't stop\n\n\nreading 2024 12345"] * 20, trainer)
tokenizer.save("folder/tokenizer.json")

TEXT = "don't stop\n\n\nin 12345"
right = tokenizer.encode(TEXT).ids
print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}: {TEXT!r} by one tokenizer.json")
print(f"  {'tokenizers':63s}{right}")
seen = {}
for named in ("GPT2Tokenizer", "PreTrainedTokenizerFast"):
    Path("folder/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    for model_type in ("olmo2", "granite", "olmo", "llama", "my_model", "qwen2"):
        Path("folder/config.json").write_text(json.dumps({"model_type": model_type}))
        loaded = AutoTokenizer.from_pretrained("folder")
        seen[named, model_type] = loaded.encode(TEXT)
        print(f"  {named:23s} model_type {model_type:9s} {type(loaded).__name__:18s}{seen[named, model_type]}")
print("Each class has a way to split text of its own, and takes only vocabulary and merges out of the file. For some model")
print("types transformers knows that the class that their tokenizer_config.json names is wrong, and takes the file as it is,")
print("or another class. So a tokenizer that was right for OLMo 2 or Granite 4 changes when it is copied to another model.")
print("A tokenizer_class of PreTrainedTokenizerFast is safe for most, not for qwen2.")
kept = all(seen["GPT2Tokenizer", model_type] == right for model_type in ("olmo2", "granite"))
changed = all(seen["GPT2Tokenizer", model_type] != right for model_type in ("olmo", "llama", "my_model", "qwen2"))
other = seen["GPT2Tokenizer", "qwen2"] != seen["GPT2Tokenizer", "my_model"]
raise SystemExit(0 if kept and changed and other and seen["PreTrainedTokenizerFast", "my_model"] == right else 1)
PY
