"""A checkpoint finds the family that reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.huggingface import families, family_of, original_config
from axon_compose.diagnostics import Problems
from axon_compose.language.config import make_config
from axon_compose.language.families import gguf_family_of, mentions, model_types_of, reads
from axon_compose.language.source import to_source
from axon_compose.registry import Registry


def test_no_model_type_is_claimed_twice() -> None:
    """Unless the class that config.json names decides."""
    claimed = [
        (model_type, architecture)
        for family in families(Registry.installed())
        for model_type in family.model_types
        for architecture in family.architectures or [None]
    ]
    assert len(claimed) == len(set(claimed))


#: Families that are exported by another name than their own: text models of larger ones, names with other letters, and
#: one that is chosen by the class.
RENAMED = {
    "gemma4_unified": "gemma4_unified_text",
    "klear": "Klear",
    "lille_130m": "lille-130m",
    "ling2_5": "bailing_hybrid",
    "minimax_m3": "minimax_m3_vl_text",
    "glm5_next": "glm5_next_text",
    "inkling": "inkling_text",
    "mistral_large4": "mistral_large4_text",
    "muse_glimmer": "muse_glimmer_text",
    "nemotron_nas": "nemotron-nas",
    "openai_gpt": "openai-gpt",
    "phixtral": "phi-msft",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen4_exp": "qwen4_exp_text",
}


def test_every_family_reads_its_own_name() -> None:
    for family in families(Registry.installed()):
        assert family.model_types[0] == RENAMED.get(family.name, family.name)


@pytest.mark.parametrize(
    ("config", "near"),
    [
        ('{"model_type": "qwen33"}', "did you mean `qwen3`? name the family (`import DIR --family qwen3`"),
        ("{}", "`axon-compose import --families`"),
        ('{"model_type": "x"}', "`axon-compose import --families`"),
    ],
)
def test_an_unknown_model_type(tmp_path: Path, config: str, near: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=tmp_path)
    (fault,) = caught.value.diagnostics
    assert fault.code == "AX606"
    assert (fault.help or "").startswith(near)


def test_the_class_chooses_among_families_of_one_model_type(tmp_path: Path) -> None:
    sections = {
        "one": {"model_types": ["shared"]},
        "two": {"model_types": ["shared"], "architectures": ["SharedV2ForCausalLM"]},
    }
    specs = {}
    for name, section in sections.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({"version": 1, "huggingface": section}))
        specs[name] = SimpleNamespace(path=path)
    registry = SimpleNamespace(architectures=lambda: specs)
    for classes, expected in [(["SharedV2ForCausalLM"], "two"), (["SharedForCausalLM"], "one"), (None, "one")]:
        node = to_source({"model_type": "shared", "architectures": classes}, "config.json", Problems())
        family = family_of(make_config(tmp_path, node, frozenset), registry, Problems())
        assert family.name == expected


def test_the_class_of_a_wrapper_chooses_among_families_of_its_text_model() -> None:
    text = {"model_type": "kimi_linear", "vocab_size": 96}
    config = {"model_type": "kimi_k3", "architectures": ["KimiK3ForConditionalGeneration"], "text_config": text}
    node = to_source(config, "config.json", Problems())
    family = family_of(make_config(Path(), node, frozenset), Registry.installed(), Problems())
    assert family is not None
    assert family.name == "kimi_k3"
    section = load("kimi_k3").document.huggingface
    assert section is not None
    assert original_config(config, section)["model_type"] == "kimi_k3"


def test_a_wrapper_is_read_by_its_text_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "seeing", "text_config": {"model_type": "qwen3"}}')
    assert load(checkpoint=tmp_path).name == "qwen3"


def test_a_family_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "quill.yaml"
    path.write_text("huggingface: {model_types: [quill]}\n")
    assert model_types_of(path) == ("quill",)
    path.write_text("huggingface: {model_types: [quill, vellum], architectures: [Vellum]}\n")
    assert reads(path) == (("quill", "vellum"), ("Vellum",))
    path.write_text("gguf: {architectures: [quill], when: =keys}\n")
    assert model_types_of(path) is None
    assert gguf_family_of(path) == (("quill",), "=keys")
    path.unlink()
    assert model_types_of(path) is None


@pytest.mark.parametrize(
    "text", ["- a list\n", "huggingface: 3\n", "huggingface: {model_types: quill}\n", "a: [\n", ""]
)
def test_a_file_that_says_nothing_of_checkpoints(text: str, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(text)
    assert model_types_of(tmp_path / "other.yaml") is None
    assert gguf_family_of(tmp_path / "other.yaml") is None


def test_what_is_no_regular_file_mentions_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert not mentions(tmp_path / "fifo", ["quill"])
    assert not mentions(tmp_path, ["quill"])
