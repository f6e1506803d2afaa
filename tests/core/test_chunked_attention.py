"""Attention within chunks, in a whole model: what the plan, `show` and `check` know of it."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np

from axon_compose import load
from axon_compose.proof.check import check_plan

TEXT = """
version: 1
dims: {hidden_size: 64, vocab_size: 128}
components:
  near: {type: attention, num_heads: 4, num_kv_heads: 2, chunk_size: 9}
  far: {type: attention, num_heads: 4, chunk_size: 70, sinks: true}
  mlp: {type: mlp, intermediate_size: 96}
blocks: {near: [near, mlp], far: [far, mlp]}
stack: near far
"""


def test_every_truth_holds(tmp_path: Path) -> None:
    (tmp_path / "chunks.yaml").write_text(TEXT)
    architecture = load(tmp_path / "chunks.yaml")
    uses = [use for layer in architecture.plan().layers for use in layer.uses()]
    assert [use.chunk for use in uses if use.chunk] == [9, 70]
    report = check_plan(architecture.plan())
    assert report.passed, [truth for truth in report.truths if not truth.passed]


def test_a_chunk_knows_nothing_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "chunks.yaml").write_text(TEXT.replace("stack: near far", "stack: near*2"))
    model = load(tmp_path / "chunks.yaml").build()
    tokens = mx.arange(27)[None]
    whole, other = model(tokens), model(mx.where(mx.arange(27) < 18, 3, tokens))
    np.testing.assert_array_equal(np.array(whole[:, 18:]), np.array(other[:, 18:]))
    assert mx.abs(whole[:, 17] - other[:, 17]).max() > 1e-3
