"""Families out of GGUF files: logits are those that transformers has for the checkpoint they are converted from."""

from __future__ import annotations

from pathlib import Path

import pytest

from axon_compose import load
from tests.checkpoints.gguf.converted import CONVERSIONS, LOST, write
from tests.families.models import difference, expected
from tests.families.test_equality import LIMIT


@pytest.mark.parametrize("name", CONVERSIONS)
def test_logits_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(name, path)
    tokens, reference = expected(name)
    found = load(checkpoint=path, settings=LOST.get(name, []))
    assert difference(found.build(weights=path)(tokens), reference) < LIMIT
