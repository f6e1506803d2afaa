"""Every fixture has a tokenizer, as a published checkpoint has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from character_tokenizer import CHARACTERS, write_tokenizer
from mlx_lm.utils import load_tokenizer

from tests.families.models import FIXTURES, NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_token_for_each_row(name: str, tmp_path: Path) -> None:
    config = json.loads((FIXTURES / name / "config.json").read_text())
    text = config | config.get("text_config", {})
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_tokenizer(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / file).read_bytes() == (FIXTURES / name / file).read_bytes(), (
            "run tests/families/character_tokenizer.py"
        )
    (tmp_path / "config.json").unlink()  # transformers would read it too, and does not know every family
    tokenizer = load_tokenizer(tmp_path, eos_token_ids=text["eos_token_id"])
    assert len(tokenizer) == text["vocab_size"]
    assert tokenizer.decode(tokenizer.encode("".join(CHARACTERS))) == "".join(CHARACTERS)
    assert tokenizer.eos_token_ids == {text["eos_token_id"]}
