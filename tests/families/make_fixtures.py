"""Makes the fixtures: small models of each family with random weights, and what transformers computes with them.

    python tests/families/make_fixtures.py [family ...]

Needs torch and transformers; the tests that read the fixtures need neither.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixture_configs import FAMILIES, Family
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

FIXTURES = Path(__file__).parent / "fixtures"
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
#: The smallest margin between the last chosen expert and the first that is not, in standard deviations of the scores.
MARGIN = 2e-3


# -- Weights --------------------------------------------------------------------------------------------------------


def softplus_inverse(y: np.ndarray) -> np.ndarray:
    """The x with log(1 + e^x) = y."""
    return y + np.log(-np.expm1(-y))


def draw(name: str, old: np.ndarray, rng: np.random.Generator, config: PreTrainedConfig) -> np.ndarray:
    """New values for the weight `name`, of the scale that it has in a trained model.

    Args:
        name: the weight's name in transformers' model.
        old: the values that a new model has; they tell norms that start at 0 from those that start at 1.
        rng: the source of chance.
        config: the model's config.
    """
    shape, leaf = old.shape, name.rsplit(".", 1)[-1]
    normal = rng.standard_normal(shape)
    parent = name.split(".")[-2] if "." in name else ""
    if leaf == "A_log":
        return np.log(rng.uniform(1.0, 16.0, shape))
    if leaf == "dt_bias" or (parent == "dt_proj" and leaf == "bias"):
        return softplus_inverse(np.exp(rng.uniform(math.log(1e-3), math.log(1e-1), shape)))
    if leaf == "D":
        return 1.0 + 0.3 * normal
    if leaf == "sinks":
        return normal
    if leaf == "layer_scalar":
        return rng.uniform(0.5, 1.0, shape)
    if "bias" in leaf:
        return 0.2 * normal
    if old.ndim == 1:
        return (0.2 * normal) if not old.any() else 1.0 + 0.2 * normal
    if "embed" in name:
        return normal / math.sqrt(shape[-1]) if config.tie_word_embeddings else normal
    if "norm" in parent:
        return 1.0 + 0.2 * normal
    # The experts of gpt_oss lie as (experts, in, out), those of all others as (experts, out, in).
    fan_in = shape[1] if old.ndim == 3 and config.model_type == "gpt_oss" else shape[-1]
    if parent in ("router", "gate"):
        normal = 1.5 * normal
    return normal / math.sqrt(fan_in)


def fill(model: PreTrainedModel, seed: int) -> None:
    """Give every parameter and every saved buffer new values, each from a seed made of its name."""
    saved = model.state_dict()
    tensors = dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if n in saved}
    with torch.no_grad():
        for name, tensor in tensors.items():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            values = draw(name, tensor.detach().numpy(), rng, model.config)
            tensor.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))


# -- Results --------------------------------------------------------------------------------------------------------


def forward(model: PreTrainedModel, tokens: torch.Tensor) -> tuple[np.ndarray, float]:
    """Logits (B, L, V), and the smallest margin of a choice of experts relative to the spread of its scores."""
    margins = [math.inf]
    topk = torch.topk

    def watched(scores: torch.Tensor, k: int, *args: Any, **kwargs: Any) -> Any:
        if 0 < k < scores.shape[-1] and scores.ndim <= 2:
            ranked = scores.detach().double().sort(dim=-1, descending=True).values
            margin = (ranked[..., k - 1] - ranked[..., k]) / ranked.std(dim=-1)
            margins.append(margin.min().item())
        return topk(scores, k, *args, **kwargs)

    torch.topk = watched
    try:
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits
    finally:
        torch.topk = topk
    return logits.numpy(), min(margins)


def new_model(family: Family) -> PreTrainedModel:
    """A float32 model in eval mode."""
    config = AutoConfig.for_model(family.model_type, **family.config)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **EAGER).eval()


def filled(model: PreTrainedModel, tokens: int) -> tuple[torch.Tensor, np.ndarray, float]:
    """Fill the model from the first seed with which no choice of experts is a near tie: tokens, logits, margin."""
    vocab_size = model.config.get_text_config().vocab_size
    for seed in range(100):
        fill(model, seed)
        rng = np.random.default_rng([seed, 1])
        row = torch.from_numpy(rng.integers(3, vocab_size, (2, tokens)))
        logits, margin = forward(model, row)
        if margin > MARGIN:
            return row, logits, margin
    raise RuntimeError("no seed keeps the choices of experts apart")


# -- Files ----------------------------------------------------------------------------------------------------------


def published_config(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """The same config in the words of transformers 4, as most published files have it."""
    config = dict(config)
    rope = config.pop("rope_parameters", None)
    if rope and "full_attention" in rope:
        whole, local = dict(rope["full_attention"]), rope["sliding_attention"]
        config["rope_local_base_freq"] = local["rope_theta"]
        rope = whole
    if rope:
        rope = dict(rope)
        config["rope_theta"] = rope.pop("rope_theta")
        partial = rope.pop("partial_rotary_factor", 1.0)
        if partial != 1.0:
            config["partial_rotary_factor"] = partial
        kind = rope.pop("rope_type", "default")
        config["rope_scaling"] = None if kind == "default" else {family.rope_kind: kind} | rope
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.51.0"
    config |= family.published
    removed = [name for name, value in family.published.items() if value is None]
    return {name: value for name, value in config.items() if name not in removed}


def write(name: str, family: Family) -> str:
    """Write the folder of one family; the answer is a row of the table in the README."""
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    model = new_model(family)
    tokens, logits, margin = filled(model, family.tokens)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    published = published_config(config, family)
    (folder / "config.published.json").write_text(json.dumps(published, indent=2, sort_keys=True) + "\n")
    save_file({"tokens": tokens.numpy().astype(np.int32), "logits": logits}, folder / "expected.safetensors")
    again = reloaded(folder, config, tokens)
    old = reloaded(folder, published, tokens)
    exact, _ = forward(model.double(), tokens)
    scale = np.abs(exact).max()
    size = (folder / "model.safetensors").stat().st_size // 1024
    gap = "" if math.isinf(margin) else f"{margin:.0e}"
    return (
        f"| {name} | {size} | {exact.std():.2f} | {np.abs(logits - exact).max() / scale:.0e} | {gap} "
        f"| {np.abs(again - logits).max() / scale:.0e} | {np.abs(old - logits).max() / scale:.0e} |"
    )


def reloaded(folder: Path, config: dict[str, Any], tokens: torch.Tensor) -> np.ndarray:
    """The logits of the saved checkpoint read back with `config`."""
    fields = {key: value for key, value in config.items() if key != "model_type"}
    read = AutoConfig.for_model(config["model_type"], **fields)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, config=read, dtype=torch.float32, output_loading_info=True, **EAGER
    )
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return forward(model.eval(), tokens)[0]


def main(names: list[str]) -> None:
    for name in names or FAMILIES:
        sys.stdout.write(write(name, FAMILIES[name]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
