"""Edits that are decided by what a text says of the source."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import axon_compose
from axon_compose import ArchitectureError
from axon_compose.checkpoints.trained import load_model
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn.data import Sources
from axon_compose.machine import memory
from axon_compose.surgery import _figures, block_influence, expert_usage
from axon_compose.surgery._streamed import Streamed
from axon_compose.surgery.texts import sample_text
from tests.surgery.edits import changed, edited, performed

TEXT = "the cat sat on the mat, and the dog lay on the log; " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts with a tokenizer of bytes."""
    place = tmp_path_factory.mktemp("experts")
    experts = {"type": "moe", "num_experts": 6, "top_k": 2, "intermediate_size": 16}
    model = changed(dims={"hidden_size": 32, "vocab_size": 259})
    model["components"] = {"attn": model["components"]["attn"], "moe": experts}
    model |= {"blocks": {"layer": ["attn", "moe"]}, "stack": "layer*4"}
    axon_compose.save(axon_compose.load(model).build(seed=3), place / "model", tokenizer="bytes")
    (place / "text.txt").write_text(TEXT)
    return place / "model"


def tokens(folder: Path) -> np.ndarray:
    return sample_text(Sources((str(folder.parent / "text.txt"),)), folder, 259).tokens


def test_the_layers_that_matter_least_are_dropped(folder: Path) -> None:
    texts = (str(folder.parent / "text.txt"),)
    influence = block_influence(load_model(folder), tokens(folder))
    order = [int(index) for index in np.argsort(influence)]
    assert edited(folder, {"drop": {"least": 2}}, texts=texts).origins == tuple(sorted(order[2:]))
    among = edited(folder, {"drop": {"least": 1, "among": [order[1], order[3]]}}, texts=texts)
    assert set(range(4)) - set(among.origins) == {order[1]}


def test_the_source_runs_once_for_several_edits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []

    def counted(source: Streamed, tokens: np.ndarray) -> list[float]:
        runs.append(source)
        return [0.4, 0.1, 0.2, 0.3]

    monkeypatch.setattr(_figures, "streamed_influence", counted)
    texts = (str(folder.parent / "text.txt"),)
    assert edited(folder, {"drop": {"least": 1}}, {"drop": {"least": 1}}, texts=texts).origins == (0, 3)
    assert len(runs) == 1


def test_experts_that_are_chosen_least_are_pruned(folder: Path, tmp_path: Path) -> None:
    texts = (str(folder.parent / "text.txt"),)
    few = {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 16}
    edit = {"layers": 1, "replace": {"moe": few}, "init": "prune"}
    target = performed(folder, tmp_path / "out", edit, texts=texts)
    source = load_model(folder)
    usage = expert_usage(source, tokens(folder))["layers.1.moe"]
    kept = np.sort(np.argsort(-usage, kind="stable")[:4])
    before = np.array(source.layers[1].moe.switch_mlp.up_proj.weight)
    after = np.array(load_model(target).layers[1].moe.switch_mlp.up_proj.weight)
    np.testing.assert_array_equal(after, before[kept])


def test_influence_takes_the_memory_of_one_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what the whole model says."""
    model = changed(stack="layer*12", dims={"hidden_size": 32, "vocab_size": 259})
    model["components"]["mlp"] = {"type": "mlp", "intermediate_size": 4096}
    axon_compose.save(axon_compose.load(model).build(seed=3), tmp_path / "model", tokenizer="bytes")
    source = axon_compose.load(tmp_path / "model")
    plan, load_plan = source.plan(), source.load_plan(tmp_path / "model").unpacked_all()
    figures = _figures.Figures(source, tmp_path / "model", load_plan, ())
    figures._tokens = np.random.default_rng(0).integers(0, 259, (2, 8))
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    found = figures.influence()
    assert mx.get_peak_memory() - before < sum(4 * use.size for use in plan.uses()) / 3
    np.testing.assert_allclose(found, block_influence(load_model(tmp_path / "model"), figures._tokens), rtol=1e-5)
    monkeypatch.setattr(memory, "available", lambda: 4 * 3 * 32 * 4096)
    with pytest.raises(CheckpointError, match="AX401"):
        figures.influence()
    figures.allow_large = True
    assert figures.influence() == found


def test_what_cannot_be_measured_is_said(folder: Path) -> None:
    few = {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 16}
    again = {"layers": 1, "replace": {"moe": few}, "init": "random"}
    description = axon_compose.load(folder).data
    file = folder.parent / "model.yaml"
    file.write_text(json.dumps(description))
    for edits, code in (
        ([{"drop": {"least": 2}}], "AX931"),
        ([{"drop": {"least": 9}}], "AX930"),
        ([{"drop": {"least": 4}}], "AX930"),  # of four: seen before anything is measured
        ([again, {"layers": 1, "set": {"moe.num_experts": 3}, "init": "prune"}], "AX931"),
    ):
        with pytest.raises(ArchitectureError) as caught:
            edited(file, *edits)
        assert [fault.code for fault in caught.value.diagnostics] == [code]
