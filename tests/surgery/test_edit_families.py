"""Edits of published families: what adds nothing changes no bit, and what a stock model can be is still exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model as load_stock

import axon_compose
from axon_compose import ArchitectureError
from axon_compose.checkpoints.export import export
from axon_compose.checkpoints.gguf import _header
from axon_compose.checkpoints.trained import load_model
from axon_compose.diagnostics import CheckpointError
from axon_compose.surgery import perform
from tests.checkpoints.gguf.converted import write
from tests.surgery.edits import edited, performed

FIXTURES = Path(__file__).resolve().parents[1] / "families" / "fixtures"
#: Norms before and after, mixtures of experts, branches side by side, and hybrids with three kinds of recurrences.
FAMILIES = ("llama", "gemma3_text", "qwen3_moe", "falcon_h1", "granitemoehybrid", "qwen3_next")


def logits(model: Any) -> np.ndarray:
    tokens = mx.array(np.random.default_rng(0).integers(0, 60, (2, 9)))
    return np.array(model(tokens).astype(mx.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_inserted_changes_no_bit(family: str, dtype: str, tmp_path: Path) -> None:
    source = FIXTURES / family
    target = performed(source, tmp_path / "out", {"insert": {"after": 0}}, {"insert": {"after": -1}}, dtype=dtype)
    np.testing.assert_array_equal(logits(load_model(target)), logits(load_model(source, dtype=dtype)))


@pytest.mark.parametrize(
    ("family", "edit"),
    [("llama", {"drop": 1}), ("llama", {"insert": {"after": 0}}), ("lfm2", {"drop": -1})],
)
def test_a_stock_model_can_still_be_exported(family: str, edit: dict[str, Any], tmp_path: Path) -> None:
    target = performed(FIXTURES / family, tmp_path / "out", edit)
    export(target, tmp_path / "stock", "mlx-lm")
    stock, _ = load_stock(tmp_path / "stock")
    np.testing.assert_allclose(logits(stock), logits(load_model(target)), rtol=1e-5, atol=1e-5)


def test_a_hybrid_that_an_edit_has_made_holds_what_is_checked(tmp_path: Path) -> None:
    mamba = {"type": "mamba2", "num_heads": 4, "head_dim": 16, "d_state": 12}
    target = performed(
        FIXTURES / "llama",
        tmp_path / "out",
        {"layers": 1, "replace": {"attn": mamba}, "init": "random"},
        {"layers": [0, 2], "set": {"attn.window_size": 8}},
    )
    report = axon_compose.load(target).check(truths=("causal", "steps", "chunks", "left-padded"))
    assert report.passed, report


def test_keys_that_are_read_from_another_layer_keep_their_writer() -> None:
    with pytest.raises(ArchitectureError, match="AX928"):
        edited(FIXTURES / "rwkv7", {"insert": {"after": 0}})
    assert not edited(FIXTURES / "rwkv7", {"insert": {"after": 2}}).edited.warnings
    warned = edited(FIXTURES / "rwkv7", {"repeat": {"layers": 0}}).edited.warnings
    assert {warning.code for warning in warned} == {"AX928"}


@pytest.mark.parametrize("family", ["deepseek_v4", "longcat_flash"])
def test_what_cannot_add_nothing_is_refused(family: str, tmp_path: Path) -> None:
    """A connection mixes streams; experts that pass on their input add it whatever the matrices are."""
    with pytest.raises((ArchitectureError, CheckpointError), match="AX926"):
        performed(FIXTURES / family, tmp_path / "out", {"insert": {"after": 0}})
    assert not list(tmp_path.iterdir())


def test_a_family_by_its_name_takes_the_sizes_of_the_weights() -> None:
    plan = edited(Path("llama"), {"drop": 0}, weights=FIXTURES / "llama")
    assert plan.edited.plan().dims.hidden_size == plan.source.plan().dims.hidden_size == 48
    assert len(plan.origins) == len(plan.source.plan().layers) - 1


def test_the_header_of_a_gguf_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its vocabulary it takes as long as the rest of a plan."""
    write("phi3", tmp_path / "model.gguf", "Q8_0")
    reads: list[Path] = []
    read = _header._read

    def counted(path: Path) -> _header.GgufFile:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(_header, "_read", counted)
    plan = edited(tmp_path / "model.gguf", {"drop": 0})
    assert {step.dtype for step in plan.steps} == {"bfloat16", "float32"}  # activations may be too large for float16
    perform(plan, tmp_path / "out", tokenizer="none")
    assert reads == [tmp_path / "model.gguf"]
