"""The tokenizer of the fixtures: a token per character, as many as their embeddings have rows.

    python tests/families/character_tokenizer.py

A published checkpoint has a tokenizer, so these have one too: three special tokens and 93 characters of ASCII.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

FIXTURES = Path(__file__).parent / "fixtures"
SPECIAL = ("<unk>", "<s>", "</s>")
#: Without two that English does without, so that there are 96 tokens.
CHARACTERS = sorted(set(string.ascii_letters + string.digits + string.punctuation + " ") - set("`~"))


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer of a fixture, with the special tokens that its config.json names by number."""
    config = json.loads((folder / "config.json").read_text())
    names = [*SPECIAL, *CHARACTERS]
    config |= config.get("text_config", {})
    assert config["vocab_size"] == len(names), folder
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": token, **flags} for number, token in enumerate(SPECIAL)],
        "pre_tokenizer": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "unk_token": SPECIAL[0],
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token.replace(" ", "Ġ"): number for number, token in enumerate(names)},
            "merges": [],
        },
    }
    roles = {f"{role}_token": names[config[f"{role}_token_id"]] for role in ("bos", "eos")}
    chosen = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": SPECIAL[0], "unk_token": SPECIAL[0], **roles}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(chosen, indent=2) + "\n")


if __name__ == "__main__":
    for path in sorted(FIXTURES.iterdir()):
        if path.is_dir():
            write_tokenizer(path)
