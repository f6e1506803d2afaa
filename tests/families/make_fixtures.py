"""Makes the fixtures: small models of each family with random weights, and what transformers computes with them.

    python tests/families/make_fixtures.py [family ...]

Needs torch and transformers; the tests that read the fixtures need neither.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import mxfp4
import numpy as np
import rwkv7_fixture
import torch
from character_tokenizer import write_tokenizer
from fixture_configs import FAMILIES, Family
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

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
    shape, (parent, leaf) = old.shape, ("." + name).split(".")[-2:]
    if leaf == "A_log":
        return np.log(rng.uniform(1.0, 16.0, shape))
    if leaf == "dt_bias" or (parent == "dt_proj" and leaf == "bias"):
        return softplus_inverse(np.exp(rng.uniform(math.log(1e-3), math.log(1e-1), shape)))
    if leaf == "layer_scalar":
        return rng.uniform(0.5, 1.0, shape)
    normal = rng.standard_normal(shape)
    if "bias" in leaf:
        return 0.2 * normal
    return vector(parent, leaf, old, normal, config) if old.ndim == 1 else matrix(name, normal, config)


def vector(parent: str, leaf: str, old: np.ndarray, normal: np.ndarray, config: PreTrainedConfig) -> np.ndarray:
    """Values of a norm or a scale."""
    if leaf == "sinks":
        return normal
    around_one = 1.0 + 0.2 * normal
    if leaf == "scale":  # of a router whose input is divided by the root of the hidden size
        return math.sqrt(normal.size) * around_one
    if parent == "q_norm" and config.model_type == "gemma4_text":  # its scores have no other scale
        return around_one / math.sqrt(normal.size)
    return around_one if old.any() else 0.2 * normal


def matrix(name: str, normal: np.ndarray, config: PreTrainedConfig) -> np.ndarray:
    """Values of a matrix (out, in), of one for each expert, or of an embedding."""
    parent = name.split(".")[-2]
    if "embed_tokens_per_layer" in name:
        return normal / math.sqrt(config.hidden_size_per_layer_input)
    if "embed" in name:
        return normal / math.sqrt(normal.shape[-1]) if config.tie_word_embeddings else normal
    # The experts of gpt_oss lie as (experts, in, out), those of all others as (experts, out, in).
    fan_in = normal.shape[1] if normal.ndim == 3 and config.model_type == "gpt_oss" else normal.shape[-1]
    return normal * (1.5 if parent in ("router", "gate") else 1.0) / math.sqrt(fan_in)


def round_experts(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Round the experts of gpt_oss to mxfp4; the answer is what a checkpoint has in their place."""
    stored: dict[str, np.ndarray] = {}
    for name, weight in model.named_parameters():
        if "experts" in name and weight.ndim == 3:
            blocks, scales = mxfp4.quantize(weight.detach().numpy().swapaxes(1, 2))
            stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            with torch.no_grad():
                weight.copy_(torch.from_numpy(mxfp4.dequantize(blocks, scales).swapaxes(1, 2).copy()))
    return stored


def saved_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Every parameter and every saved buffer."""
    saved = model.state_dict()
    return dict(model.named_parameters()) | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def fill(model: PreTrainedModel, seed: int, initial: dict[str, np.ndarray]) -> None:
    """Give every tensor new values, each from a seed made of its name."""
    with torch.no_grad():
        for name, tensor in saved_tensors(model).items():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            values = draw(name, initial[name], rng, model.config)
            tensor.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))


# -- Results --------------------------------------------------------------------------------------------------------


def forward(model: PreTrainedModel, tokens: torch.Tensor) -> tuple[np.ndarray, float]:
    """Logits (B, L, V), and the smallest margin of a choice of experts relative to the spread of its scores."""
    margins = [math.inf]
    topk = torch.topk

    def watched(scores: torch.Tensor, k: int, *args: Any, **kwargs: Any) -> Any:
        if 0 < k < scores.shape[-1]:
            ranked = scores.detach().double().sort(dim=-1, descending=True).values
            if ranked.min() > 0 and torch.allclose(ranked.sum(dim=-1), torch.ones(()).double()):
                ranked = ranked.log()  # probabilities: their logarithms are the scores
            hidden = ranked < -1e30  # by a mask: chosen only where there is nothing else
            spread = ranked.masked_fill(ranked.abs() > 1e30, math.nan)
            spread = (spread - spread.nanmean(dim=-1, keepdim=True)).square().nanmean(dim=-1).sqrt()
            margin = (ranked[..., k - 1] - ranked[..., k]) / spread
            margins.append(margin.masked_fill(hidden[..., k], math.inf).nan_to_num(math.inf).min().item())
        return topk(scores, k, *args, **kwargs)

    torch.topk = torch.Tensor.topk = watched
    try:
        with torch.no_grad():
            logits = model(tokens, use_cache=False).logits
    finally:
        torch.topk = torch.Tensor.topk = topk
    return logits.numpy(), min(margins)


def new_model(family: Family) -> PreTrainedModel:
    """A float32 model in eval mode."""
    fields = {name: value for name, value in family.config.items() if name != "quantization_config"}
    config = AutoConfig.for_model(family.model_type, **fields)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, **EAGER).eval()


def filled(model: PreTrainedModel, family: Family) -> tuple[torch.Tensor, np.ndarray, float]:
    """Fill the model from the first seed with which no choice of experts is a near tie: tokens, logits, margin."""
    vocab_size = model.config.get_text_config().vocab_size
    initial = {name: tensor.detach().numpy().copy() for name, tensor in saved_tensors(model).items()}
    for seed in range(100):
        fill(model, seed, initial)
        if family.mxfp4:
            round_experts(model)
        rng = np.random.default_rng([seed, 1])
        row = torch.from_numpy(rng.integers(3, vocab_size, (2, family.tokens)))
        logits, margin = forward(model, row)
        if margin > MARGIN:
            return row, logits, margin
    raise RuntimeError("no seed keeps the choices of experts apart")


# -- Files ----------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Numbers that transformers 5 spells as {"__float__": "Infinity"} as numbers."""
    if isinstance(value, dict):
        return float(value["__float__"]) if "__float__" in value else {k: plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def published_config(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """The same config in the words of transformers 4, as most published files have it."""
    config = plain(config)
    if family.model_type == "gemma4_text":  # younger than transformers 5: only its own words
        return without_nones(config | family.published, family)
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
    return without_nones(config | family.published, family)


def without_nones(config: dict[str, Any], family: Family) -> dict[str, Any]:
    """The config without the fields that published files do not have."""
    return {name: value for name, value in config.items() if family.published.get(name, 0) is not None}


def store_in_four_bits(folder: Path, model: PreTrainedModel, family: Family) -> None:
    """Put blocks and scales in the place of the experts."""
    stored = round_experts(model)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if f"{name}_blocks" not in stored}
    save_file(tensors | stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = family.config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def add_unused(file: Path, model: PreTrainedModel) -> None:
    """Add tensors that published checkpoints hold and no model uses."""
    config, rng = model.config, np.random.default_rng(0)
    unused: dict[str, np.ndarray] = {}
    layers = range(config.num_hidden_layers)
    if config.model_type == "gpt_neox":
        size, rotary = config.max_position_embeddings, config.hidden_size // config.num_attention_heads // 4
        for layer in layers:
            prefix = f"gpt_neox.layers.{layer}.attention"
            unused[f"{prefix}.bias"] = np.tril(np.ones((1, 1, size, size), dtype=bool))
            unused[f"{prefix}.masked_bias"] = np.array(-1e9, dtype=np.float32)
            unused[f"{prefix}.rotary_emb.inv_freq"] = np.ones(rotary, dtype=np.float32)
    if config.model_type == "gemma4_text":
        for layer in layers[len(layers) - config.num_kv_shared_layers :]:
            prefix = f"model.layers.{layer}.self_attn"
            heads, head_dim = (1, 16) if config.layer_types[layer] == "full_attention" else (2, 8)
            unused[f"{prefix}.k_norm.weight"] = rng.standard_normal(head_dim).astype(np.float32)
            for projection in ("k_proj", "v_proj")[: 1 if head_dim == 16 else 2]:
                shape = (heads * head_dim, config.hidden_size)
                unused[f"{prefix}.{projection}.weight"] = rng.standard_normal(shape).astype(np.float32)
    if unused:
        save_file(load_file(file) | unused, file, metadata={"format": "pt"})


def write(name: str, family: Family) -> str:
    """Write the folder of one family; the answer is a row of the table in the README."""
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    model = new_model(family)
    tokens, logits, margin = filled(model, family)
    model.save_pretrained(folder)
    if family.mxfp4:
        store_in_four_bits(folder, model, family)
    add_unused(folder / "model.safetensors", model)
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
    config = {name: value for name, value in config.items() if name != "quantization_config"}
    tensors = load_file(folder / "model.safetensors")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "config.json").write_text(json.dumps(config))
        save_file(in_floats(tensors), Path(place) / "model.safetensors", metadata={"format": "pt"})
        model, info = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, output_loading_info=True, **EAGER
        )
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return forward(model.eval(), tokens)[0]


def in_floats(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with blocks decoded by transformers, whose loader of mxfp4 wants a package that is not here."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(("_blocks", "_scales"))}
    for name in tensors:
        if name.endswith("_blocks"):
            blocks, scales = (torch.from_numpy(tensors[key]) for key in (name, name.replace("_blocks", "_scales")))
            decoded = _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
            found[name.removesuffix("_blocks")] = decoded.numpy()
    return found


def main(names: list[str]) -> None:
    for name in names or [*FAMILIES, "rwkv7"]:
        row = rwkv7_fixture.write(FIXTURES / name) if name == "rwkv7" else write(name, FAMILIES[name])
        write_tokenizer(FIXTURES / name)
        sys.stdout.write(row + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
