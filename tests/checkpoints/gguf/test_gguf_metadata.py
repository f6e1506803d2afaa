"""Metadata to dims: every key is accounted for, and faults have a place."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import MODEL_ARCH

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.gguf import _families
from axon_compose.checkpoints.gguf._compile import gguf_config
from axon_compose.checkpoints.gguf._rope import _of_frequencies
from axon_compose.diagnostics import CheckpointError
from axon_compose.language.layout import to_text
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry
from axon_compose.report import render
from tests.checkpoints.gguf import attention, converted
from tests.checkpoints.gguf.converted import CONVERSIONS, LOST, write
from tests.checkpoints.gguf.test_gguf_header import small
from tests.checkpoints.gguf.writing import Conversion
from tests.families.models import architecture, difference, expected
from tests.plan.concrete.test_unroll import everything


def with_keys(monkeypatch: pytest.MonkeyPatch, path: Path, name: str = "qwen2", **keys: Any) -> Path:
    """A fixture with other keys; null takes one away."""
    usual = CONVERSIONS[name]

    def changed(config: dict[str, Any]) -> dict[str, Any]:
        found = usual.keys(config) | {key.replace("__", "."): value for key, value in keys.items()}
        return {key: value for key, value in found.items() if value is not None}

    monkeypatch.setitem(converted.CONVERSIONS, name, usual._replace(keys=changed))
    write(name, path)
    return path


def fault(path: Path, **options: Any) -> str:
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=path, **options)
    return render(caught.value.diagnostics, caught.value.sources)


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "granitemoehybrid", "mixtral"])
def test_dims_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(name, path)
    found = load(checkpoint=path, settings=LOST.get(name, []))
    assert everything(found.plan()) == everything(architecture(name).plan())
    assert found.config is not None
    assert found.config.value("model_type") in (name, "qwen2")


def test_the_imported_file_is_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write("mixtral", path)
    whole = load(checkpoint=path)
    file = tmp_path / "imported.yaml"
    file.write_text(to_text(unroll(whole.document, whole.plan(), Registry.installed(), gguf=True)))
    imported = load(file)
    assert everything(imported.plan()) == everything(whole.plan())
    tokens, reference = expected("mixtral")
    assert difference(imported.build(weights=path)(tokens), reference) < 2e-5


def test_a_key_that_nothing_reads_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_keys(monkeypatch, tmp_path / "m.gguf", attention__clamp_kqv=8.0)
    said = fault(path)
    assert "error[AX602]: `attention.clamp_kqv` in the metadata is not handled" in said
    assert "qwen2.attention.clamp_kqv: 8.0" in said
    assert load(checkpoint=path, settings=["gguf.ignore=[attention.clamp_kqv]"]).plan()


def test_a_value_that_means_another_model_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_keys(monkeypatch, tmp_path / "m.gguf", "gemma2", rope__dimension_count=6)
    assert "error[AX603]: `rope.dimension_count` is `6`; this family file supports only `16`" in fault(path)


def test_a_dim_without_a_value_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_keys(monkeypatch, tmp_path / "m.gguf", "lfm2", attention__head_count_kv=2)
    assert "error[AX614]: the dim `layer_types` cannot be computed from the metadata" in fault(path)


def test_an_unknown_scaling_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_keys(monkeypatch, tmp_path / "m.gguf", rope__scaling__type="spiral", rope__scaling__factor=2.0)
    assert "error[AX604]: `rope.scaling.type` is `spiral`" in fault(path)


def test_linear_scaling_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_keys(monkeypatch, tmp_path / "m.gguf", rope__scaling__type="linear", rope__scaling__factor=4.0)
    scaling = load(checkpoint=path).document.dims["rope_scaling"]
    assert scaling == {"type": "linear", "factor": 4.0}


@pytest.mark.parametrize("gain", ["yarn_attn_factor", "attn_factor"])
def test_yarn_is_read(gain: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The gain in the metadata is `attention_factor` of config.json, which the converter hands on."""
    path = with_keys(
        monkeypatch, tmp_path / "m.gguf", rope__scaling__type="yarn", rope__scaling__factor=4.0,
        rope__scaling__original_context_length=64, **{f"rope__scaling__{gain}": 1.25},
    )  # fmt: skip
    scaling = load(checkpoint=path).document.dims["rope_scaling"]
    assert scaling == {
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.25,
    }  # fmt: skip


def test_no_experts_at_all_is_a_llama(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = with_keys(monkeypatch, tmp_path / "m.gguf", "mistral", expert_count=0, expert_used_count=0)
    assert load(checkpoint=path).name == "llama"


def test_an_unknown_architecture_names_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = CONVERSIONS["qwen2"]
    other = Conversion(MODEL_ARCH.QWEN, usual.keys, usual.change)
    monkeypatch.setitem(converted.CONVERSIONS, "qwen2", other)
    write("qwen2", tmp_path / "m.gguf")
    said = fault(tmp_path / "m.gguf")
    assert "error[AX606]: no family reads the GGUF architecture `qwen`" in said
    assert "did you mean `qwen3`?" in said


def test_the_keys_of_llama3_come_back(tmp_path: Path) -> None:
    """The converter computes one factor for each frequency; those of Llama 3.1 are recognised."""
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    (factors,) = attention.llama3_factors({"head_dim": 128, "rope_parameters": rope}).values()
    found = _of_frequencies(factors.tolist(), 500000.0)
    assert (found["type"], found["factor"], found["original_max_position_embeddings"]) == ("llama3", 8.0, 8192)


@pytest.mark.parametrize(
    ("factor", "theta"), [(0.0, 1e4), (-1.0, 1e4), (math.inf, 1e4), (math.nan, 1e4), (2.0, 0.0), (2.0, -3.0)]
)
def test_factors_of_no_rule_are_left_to_the_option(factor: float, theta: float) -> None:
    assert _of_frequencies([factor] * 8, theta)["type"] == "longrope"


def with_factors(monkeypatch: pytest.MonkeyPatch, path: Path, name: str, factors: np.ndarray) -> Path:
    changed = CONVERSIONS[name]._replace(extra=lambda config: {"rope_freqs.weight": factors})
    monkeypatch.setitem(converted.CONVERSIONS, name, changed)
    write(name, path)
    return path


def test_factors_are_read_or_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read = with_factors(monkeypatch, tmp_path / "a.gguf", "llama", np.full(6, 2.0))
    assert load(checkpoint=read).document.dims["rope_scaling"]["long_factor"] == [2.0] * 6
    unread = with_factors(monkeypatch, tmp_path / "b.gguf", "mamba", np.full(6, 2.0))
    assert "error[AX602]: the rotary factors `rope_freqs.weight` are not handled" in fault(unread)
    assert load(checkpoint=unread, settings=["gguf.ignore=[rope_freqs.weight]"]).load_plan(unread)
    odd = with_factors(monkeypatch, tmp_path / "c.gguf", "llama", np.ones((2, 4)))
    with pytest.raises(CheckpointError, match=r"AX511.*rope_freqs\.weight.*has the shape"):
        load(checkpoint=odd)


def test_tokens_are_numbers(tmp_path: Path) -> None:
    keys = {"tokenizer__ggml__bos_token_id": list(range(200_000)), "tokenizer__ggml__eos_token_id": "a"}
    config = gguf_config(small(tmp_path / "m.gguf", tokenizer__ggml__eot_token_id=7, **keys))
    assert (config.value("bos_token_id"), config.value("eos_token_id")) == (None, 7)


def test_every_architecture_has_one_family() -> None:
    """Those that share one say which files they read."""
    found = _families.gguf_families(Registry.installed())
    for name in {name for family in found for name in family.reads.architectures}:
        owners = [family for family in found if name in family.reads.architectures]
        assert len(owners) == 1 or all(family.reads.when for family in owners), name
    assert {family.name for family in found} == {architecture(name).name for name in CONVERSIONS}


def test_the_page_lists_every_architecture_and_family() -> None:
    page = (Path(__file__).parents[3] / "docs" / "gguf.md").read_text()
    rows = re.findall(r"^\| (`.+`) \| (.*`.+) \|$", page.split("## What stays exact")[0], re.MULTILINE)
    listed, families = ({name for row in rows for name in re.findall(r"`(.+?)`", row[at])} for at in (0, 1))
    found = _families.gguf_families(Registry.installed())
    assert listed == {name for family in found for name in family.reads.architectures}
    assert families == {family.name for family in found}


def test_other_implementations_get_the_decoded_weights(tmp_path: Path) -> None:
    """`verify` writes the model of the file as a checkpoint for them."""
    from axon_compose.proof.verify import verify

    path = tmp_path / "model.gguf"
    write("phi3", path, "Q4_0")
    settings = ["dims.rope_scaling=null", "dims.max_position_embeddings=256"]
    found = verify(path, tokens=16, against=["mlx-lm"], settings=settings)
    assert [(peer.name, peer.status) for peer in found.peers] == [("mlx-lm", "ok")]


def test_commands_take_it_as_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from axon_compose.cli import main

    path = tmp_path / "model.gguf"
    write("qwen2", path)
    assert main(["import", str(path), "-o", str(tmp_path / "mine.yaml")]) == 0
    assert "family qwen2 (GGUF architecture qwen2); read from the metadata: embedding_length" in capsys.readouterr().err
    assert main(["build", str(tmp_path / "mine.yaml"), "--weights", str(path), "--tokenizer", "none"]) == 0
    assert "all finite" in capsys.readouterr().out
    assert main(["cost", str(path)]) == 0
    assert "qwen2: " in capsys.readouterr().out
    assert main(["cost", str(tmp_path / "missing.gguf")]) != 0
    assert "missing.gguf" in capsys.readouterr().err
