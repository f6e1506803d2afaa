"""The fixtures as models of ours: each is loaded once in a worker."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path

import mlx.core as mx
import numpy as np

from axon_compose import Architecture, load
from axon_compose.model import LanguageModel

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
#: Those whose logits mlx-lm has computed: transformers has no class for them.
BY_MLX_LM = frozenset(
    path.stem
    for path in (Path(__file__).parent / "recipes").glob("*.yaml")
    if "reference: mlx-lm" in path.read_text().splitlines()
)

#: transformers takes Phi-3's short factors for contexts within the original length; ours are chosen once, for the
#: context that a model is laid out for. It clamps the steps of Nemotron-H at `time_step_min`, as no other code does.
SETTINGS = {
    "axk1": ["dims.corrected=true"],  # which otherwise only the tensors say
    "phi3": ["dims.rope_scaling.max_position_embeddings=64"],
    "nemotron_h_published": ["dims.time_step_limit=[0.001, null]"],
}


@lru_cache(maxsize=4)
def architecture(name: str) -> Architecture:
    """The family file with the sizes of a fixture."""
    return load(checkpoint=FIXTURES / name, settings=SETTINGS.get(name, []))


@lru_cache(maxsize=4)
def model(name: str) -> LanguageModel:
    """The model with the weights of a fixture."""
    return architecture(name).build(weights=FIXTURES / name)


@lru_cache(maxsize=4)
def expected(name: str) -> tuple[mx.array, np.ndarray]:
    """Tokens (2, L), and the logits (2, L, V) that the reference gives for them."""
    arrays = mx.load(str(FIXTURES / name / "expected.safetensors"))
    return arrays["tokens"], np.array(arrays["logits"])


def difference(logits: mx.array, reference: np.ndarray) -> float:
    """Largest difference, relative to the largest logit."""
    return float(np.abs(np.array(logits, copy=False) - reference).max() / np.abs(reference).max())


def decoded(built: LanguageModel, tokens: mx.array, first: int) -> mx.array:
    """Logits of the first tokens at once and of the others one by one, through the caches."""
    cache = built.make_cache()
    pieces = [built(tokens[:, :first], cache)]
    pieces += [built(tokens[:, at : at + 1], cache) for at in range(first, tokens.shape[1])]
    return mx.concatenate(pieces, axis=1)


def copied(name: str, target: Path, config: str = "config.json") -> Path:
    """A copy of a fixture with one of its configurations."""
    target.mkdir()
    shutil.copy(FIXTURES / name / config, target / "config.json")
    shutil.copy(FIXTURES / name / "model.safetensors", target)
    return target
