"""Processes train together only if they train the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.ranks import ended, ring

MODEL = """
version: 1
name: tiny
dims:
  hidden_size: 16
  vocab_size: 259
components:
  attn:
    type: attention
    num_heads: 2
    head_dim: 8
blocks:
  layer: [attn]
stack: layer
"""


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (["--learning-rate", "0.01"], r"rank 1 has another `\w+` than rank 0: 0.01, not 0.1"),
        (["--set", "components.attn.head_dim=4"], "rank 1 has another description of the model than rank 0: "),
    ],
)
def test_what_differs_is_told(tmp_path: Path, other: list[str], what: str) -> None:
    file, text = tmp_path / "tiny.yaml", tmp_path / "text.txt"
    file.write_text(MODEL)
    text.write_text("describe, trust, run. " * 50)
    common = ["-m", "axon_compose", "train", str(file), "--data", str(text), "--out", str(tmp_path / "out")]
    common += ["--steps", "1", "--batch", "2", "--length", "16", "--learning-rate", "0.1"]
    with ring(tmp_path, [common, [*common, *other]]) as processes:
        said = ended(processes)
    assert [code for code, _, _ in said] == [2, 2]
    assert not (tmp_path / "out").exists()
    (told,) = re.findall(r"error\[AX971\]: .*", "".join(err for _, _, err in said))
    assert re.search(what, told)
