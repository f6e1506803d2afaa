"""Checkpoints as mlx-lm converts them: the weights of its models, made of the same fixtures, give the same logits."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from axon_compose import load
from tests.families.models import FIXTURES, SETTINGS, copied, difference, expected

#: Those of each kind of rule; mlx-lm does not load the other fixtures from their configurations, or differs in nothing.
NAMES = [
    "afmoe",
    "apertus",
    "bailing_moe_linear",
    "dbrx",
    "deepseek_v3",
    "falcon_h1",
    "falcon_h1_plain",
    "gemma2",
    "gpt_neox_sequential",
    "gpt_oss_mxfp4",
    "granitemoehybrid",
    "granitemoehybrid_dense",
    "lfm2",
    "mamba",
    "minicpm",
    "minicpm3",
    "mixtral",
    "nemotron_h_latent",
    "openelm",
    "phi3",
    "phimoe",
    "phixtral",
    "plamo",
    "qwen3_moe",
    "qwen3_next",
    "recurrent_gemma",
    "stablelm",
    "step3p5",
]


def converted(name: str, folder: Path) -> Path:
    """The fixture as mlx-lm would write it."""
    older = FIXTURES / name / "config.published.json"
    copied(name, folder, older.name if older.exists() else "config.json")
    weights = dict(tree_flatten(load_model(folder)[0].parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_checkpoint_is_the_same_model(name: str, tmp_path: Path) -> None:
    folder = converted(name, tmp_path / name)
    built = load(checkpoint=folder, settings=SETTINGS.get(name, [])).build(weights=folder)
    tokens, reference = expected(name)
    assert difference(built(tokens), reference) < 2e-5
