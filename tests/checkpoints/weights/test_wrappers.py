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

from axon_compose import load
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
    known = {name: text for name, text in TEXT_TYPES.items() if name not in FOREIGN}
    assert {name: text for name, text in found.items() if text in read}.items() <= known.items() <= found.items()
