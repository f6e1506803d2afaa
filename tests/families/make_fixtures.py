"""Makes the fixtures of the first families, whose weights are kept; `make_seeded.py` makes those of all others.

They are small models with random weights, and what transformers computes with them.

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
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel
from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.families import mxfp4, rwkv7_fixture  # noqa: E402  (run as a script)
from tests.families.character_tokenizer import write_tokenizer  # noqa: E402
from tests.families.distributions import entry_for, values  # noqa: E402
from tests.families.fixture_configs import FAMILIES, Family  # noqa: E402
from tests.families.fixture_files import published_config, write_json  # noqa: E402
from tests.families.torch_reference import forward, new_model, read_back  # noqa: E402

FIXTURES = Path(__file__).parent / "fixtures"
#: The smallest margin between the last chosen expert and the first that is not, in standard deviations of the scores.
MARGIN = 2e-3


# -- Weights --------------------------------------------------------------------------------------------------------


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


def entries_of(model: PreTrainedModel, family: Family) -> dict[str, list[Any]]:
    """The distribution of every tensor of a new model."""
    tied = model.config.tie_word_embeddings
    return {
        name: entry_for(name, tuple(tensor.shape), tied=tied, initial=float(tensor.any()), draws=family.draws)
        for name, tensor in saved_tensors(model).items()
    }


def fill(model: PreTrainedModel, seed: int, entries: dict[str, list[Any]]) -> None:
    """Give every tensor new values, each from a seed made of its name."""
    with torch.no_grad():
        for name, tensor in saved_tensors(model).items():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            tensor.copy_(torch.from_numpy(values(entries[name], tuple(tensor.shape), rng)))


def filled(model: PreTrainedModel, family: Family) -> tuple[np.ndarray, np.ndarray, float]:
    """Fill the model from the first seed with which no choice of experts is a near tie: tokens, logits, margin."""
    vocab_size = model.config.get_text_config().vocab_size
    entries = entries_of(model, family)
    for seed in range(100):
        fill(model, seed, entries)
        if family.mxfp4:
            round_experts(model)
        tokens = np.random.default_rng([seed, 1]).integers(3, vocab_size, (2, family.tokens))
        logits, margin = forward(model, tokens)
        if margin > MARGIN:
            return tokens, logits, margin
    raise RuntimeError("no seed keeps the choices of experts apart")


# -- Files ----------------------------------------------------------------------------------------------------------


def store_in_four_bits(folder: Path, model: PreTrainedModel, family: Family) -> None:
    """Put blocks and scales in the place of the experts."""
    stored = round_experts(model)
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if f"{name}_blocks" not in stored}
    save_file(tensors | stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"quantization_config": family.config["quantization_config"]})


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
    """Write the folder of one family; the answer is a row about it."""
    folder = FIXTURES / name
    folder.mkdir(parents=True, exist_ok=True)
    model = new_model(without_blocks(family.config) | {"model_type": family.model_type})
    tokens, logits, margin = filled(model, family)
    model.save_pretrained(folder)
    if family.mxfp4:
        store_in_four_bits(folder, model, family)
    add_unused(folder / "model.safetensors", model)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    published = published_config(config, family.published, family.rope_kind)
    write_json(folder / "config.published.json", published)
    save_file({"tokens": tokens.astype(np.int32), "logits": logits}, folder / "expected.safetensors")
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


def reloaded(folder: Path, config: dict[str, Any], tokens: np.ndarray) -> np.ndarray:
    """The logits of the saved checkpoint read back with `config`."""
    model, info = read_back(without_blocks(config), in_floats(load_file(folder / "model.safetensors")))
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return forward(model, tokens)[0]


def without_blocks(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the same model with experts in floats."""
    return {name: value for name, value in config.items() if name != "quantization_config"}


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
