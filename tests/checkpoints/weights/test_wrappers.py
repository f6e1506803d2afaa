"""The text model of a model of images or sound, however its other parts are called."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from shutil import copytree
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import ArchitectureError, load
from axon_compose.checkpoints.files import CheckpointError
from axon_compose.checkpoints.huggingface import families
from axon_compose.language.wrappers import FOREIGN, TEXT_TYPES
from axon_compose.registry import Registry

FIXTURES = Path(__file__).parents[2] / "families" / "fixtures"
#: Wrapper to a fixture of its text model, and what its other parts are called.
WRAPPERS = {
    "mistral3": ("mistral", ["vision_tower.transformer.layers.0.q.weight", "multi_modal_projector.norm.weight"]),
    "llava": ("llama", ["vision_tower.vision_model.post_layernorm.bias", "multi_modal_projector.linear_1.weight"]),
    "voxtral": ("llama", ["audio_tower.conv1.weight", "multi_modal_projector.linear_1.weight"]),
    "lfm2_vl": ("lfm2", ["vision_tower.vision_model.head.weight", "multi_modal_projector.linear_1.bias"]),
    "cohere2_vision": ("cohere2", ["vision_tower.layers.0.norm.weight", "multi_modal_projector.linear_1.weight"]),
    "internvl": ("qwen2", ["vision_tower.encoder.layer.0.lambda_1", "mlp1.0.weight"]),
    "kimi_k25": ("deepseek_v3", ["vision_tower.patch_embed.proj.weight", "mm_projector.pre_norm.weight"]),
}
#: How names of the text model and of the other parts begin: as transformers 4 and 5 save them, and without a prefix.
STYLES = {
    "language_model.model": (lambda name: f"language_model.{name}", lambda name: name),
    "model.language_model": (
        lambda name: name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name,
        lambda name: f"model.{name}",
    ),
    "no prefix": (lambda name: name, lambda name: name),
}
TOKENS = mx.array([[1, 5, 9, 2, 7, 3]])


def wrapped(path: Path, wrapper: str, style: str, *, named: bool, more: dict[str, Any] | None = None) -> Path:
    """A fixture inside a wrapper; `named`: its text_config says its own type."""
    family, others = WRAPPERS[wrapper]
    copytree(FIXTURES / (family if (FIXTURES / family).is_dir() else "llama"), path)
    text, other = STYLES[style]
    weights: Any = mx.load(str(path / "model.safetensors"))
    renamed = {text(name): value for name, value in weights.items()}
    renamed |= {other(name): mx.zeros((2, 3)) for name in others} | (more or {})
    mx.save_safetensors(str(path / "model.safetensors"), renamed, {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    if not named:
        del config["model_type"]
    top = {"model_type": wrapper, "text_config": config, "vision_config": {"hidden_size": 3}, "image_token_index": 9}
    (path / "config.json").write_text(json.dumps(top))
    return path


def logits(folder: Path) -> np.ndarray:
    model = load(checkpoint=folder).build(weights=folder, dtype="float32")
    return np.array(model(TOKENS))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_text_model_is_read(wrapper: str, style: str, tmp_path: Path) -> None:
    folder = wrapped(tmp_path / "w", wrapper, style, named=style != "no prefix")
    family = WRAPPERS[wrapper][0]
    plain = FIXTURES / (family if (FIXTURES / family).is_dir() else "llama")
    assert np.array_equal(logits(folder), logits(plain))
    assert len(load(checkpoint=folder).load_plan(folder).dropped) >= 2


@pytest.mark.parametrize("style", STYLES)
def test_a_tensor_of_the_text_model_is_never_dropped_as_another_part(style: str, tmp_path: Path) -> None:
    name = STYLES[style][0]("model.layers.0.self_attn.sinks")
    folder = wrapped(tmp_path / "w", "llava", style, named=True, more={name: mx.zeros((4,))})
    with pytest.raises(CheckpointError, match="AX553") as caught:
        load(checkpoint=folder).build(weights=folder)
    assert "model.layers.0.self_attn.sinks" in str(caught.value)


def test_without_a_wrapper_nothing_is_another_part(tmp_path: Path) -> None:
    copytree(FIXTURES / "llama", tmp_path / "c")
    weights: Any = mx.load(str(tmp_path / "c" / "model.safetensors"))
    mx.save_safetensors(
        str(tmp_path / "c" / "model.safetensors"), weights | {"vision_tower.a": mx.zeros((2,))}, {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"vision_tower\.a, which no rule matches"):
        load(checkpoint=tmp_path / "c").build(weights=tmp_path / "c")


#: As the published files name the tensors of the text model, `lm_head` included, and those of other parts.
PUBLISHED = {
    "qwen2_vl": ("model.", "lm_head", "visual.merger.mlp.0.weight"),  # Qwen2-VL, Qwen2.5-VL: fields side by side
    "qwen3_vl": ("model.language_model.", "lm_head", "model.visual.merger.norm.weight"),
    "qwen3_vl_moe": ("model.language_model.", "lm_head", "model.visual.deepstack_merger_list.0.norm.weight"),
    "gemma4_unified": ("model.language_model.", None, "model.embed_vision.embedding_projection.weight"),
    "gemma3_text": ("language_model.model.", None, "multi_modal_projector.mm_soft_emb_norm.weight"),
    "ministral3": ("language_model.model.", "language_model.lm_head", "multi_modal_projector.linear_1.weight"),
    "deepseek_v3": ("language_model.model.", "language_model.lm_head", "vision_tower.patch_embed.proj.weight"),
    "lfm2": ("model.language_model.", None, "model.vision_tower.vision_model.post_layernorm.weight"),
    "mistral": ("language_model.model.", "language_model.lm_head", "vision_tower.patch_conv.weight"),
}
WHOLE = {
    "gemma3_text": "gemma3", "gemma4_unified": "gemma4_unified", "ministral3": "mistral3", "deepseek_v3": "kimi_vl",
    "lfm2": "lfm2-vl", "mistral": "pixtral",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_are_read(name: str, tmp_path: Path) -> None:
    """The fixture of a text model, under the names and with the fields of the published wrapper."""
    body, head, other = PUBLISHED[name]
    folder = tmp_path / "c"
    copytree(FIXTURES / name, folder)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    texts = {key.replace("model.language_model.", "model.", 1): value for key, value in weights.items()}
    texts = {key: value for key, value in texts.items() if not key.startswith(("model.visual.", "visual."))}
    renamed = {
        key.replace("model.", body, 1) if key.startswith("model.") else key.replace("lm_head", head or "", 1): value
        for key, value in texts.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), renamed | {other: mx.zeros((2, 3))}, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config", config)
    if name == "qwen2_vl":
        whole = {**text, **config}
    else:
        whole = {"model_type": WHOLE.get(name, name), "text_config": text, "vision_config": {"depth": 1}}
    (folder / "config.json").write_text(json.dumps(whole))
    assert np.array_equal(logits(folder), logits(FIXTURES / name))
    assert load(checkpoint=folder).load_plan(folder).dropped == (other,)


def test_fields_of_other_parts_are_none_of_the_text_model(tmp_path: Path) -> None:
    config = json.loads((FIXTURES / "qwen2_vl" / "config.json").read_text())
    flat = {**config.pop("text_config"), **config, "vision_token_id": 5, "image_size": 3}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    with pytest.raises(ArchitectureError) as caught:
        load(checkpoint=tmp_path)
    (fault,) = caught.value.diagnostics
    assert (fault.code, "`image_size`" in fault.message) == ("AX602", True)


def test_default_types_are_those_of_transformers() -> None:
    """Every wrapper of the installed transformers whose text model by default is one that a family reads."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    read = {name for family in families(Registry.installed()) for name in family.model_types}
    found = {}
    for name in CONFIG_MAPPING.keys():  # noqa: SIM118  # lazy: its items import everything
        with suppress(Exception):  # packages that are not here, and classes without defaults
            configuration = CONFIG_MAPPING[name]
            if "text_config" in (getattr(configuration, "sub_configs", None) or {}):
                found[name] = configuration().text_config.model_type
    assert found.keys().isdisjoint(FOREIGN)
    known = {name: text for name, text in TEXT_TYPES.items() if name not in FOREIGN}
    assert {name: text for name, text in found.items() if text in read}.items() <= known.items() <= found.items()
