"""Models of one's own that are trained, and what they answer: for the tests of folders that build and mlx_lm write."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model as load_with_mlx_lm

from axon_compose.model import LanguageModel

_PARTS: dict[str, Any] = {
    "ssm": {"type": "axon_ssm", "d_state": 4},
    "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2},
    "reader": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "kv_from": "attn"},
    "moe": {"type": "shared_expert_moe", "num_experts": 4, "top_k": 2, "intermediate_size": 64},
    "mlp": {"type": "mlp", "intermediate_size": 64},
}
_KINDS: dict[str, dict[str, Any]] = {
    "hybrid": {"blocks": {"a": ["ssm"], "b": ["attn", "moe"]}, "stack": "a*2 b"},
    "its own head": {"blocks": {"a": ["attn", "mlp"]}, "stack": "a*2", "head": {"tied": False}},
    "weights of an earlier layer": {
        "blocks": {"a": {"branches": ["attn", "mlp"], "share": "all"}},
        "stack": "a*3",
    },
    "keys and values of another layer": {"blocks": {"a": ["attn", "mlp"], "r": ["reader", "mlp"]}, "stack": "a r"},
    "in parallel": {"blocks": {"a": [{"parallel": ["ssm", "attn"]}, "mlp"]}, "stack": "a*2"},
}
KINDS = list(_KINDS)


def description(kind: str = "hybrid", **dims: int) -> dict[str, Any]:
    """A small file of this kind."""
    sections = copy.deepcopy(_KINDS[kind])
    used = {name: part for name, part in _PARTS.items() if f"'{name}'" in repr(sections["blocks"])}
    sizes = {"hidden_size": 64, "vocab_size": 264} | dims
    return {"version": 1, "name": "own", "dims": sizes, "components": used, **sections}


def tokens(vocab_size: int = 264, length: int = 24) -> mx.array:
    """(2, length) random tokens."""
    return mx.random.randint(0, vocab_size, (2, length), key=mx.random.key(3))


def trained(model: LanguageModel, steps: int = 3) -> LanguageModel:
    """The model after some steps of an optimizer of MLX, in evaluation mode."""
    batch, optimizer = tokens(model.plan.dims.vocab_size), optim.AdamW(learning_rate=1e-2)

    def loss(network: nn.Module) -> mx.array:
        return nn.losses.cross_entropy(network(batch[:, :-1]), batch[:, 1:]).mean()

    model.train()
    for _ in range(steps):
        _, gradients = nn.value_and_grad(model, loss)(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
    model.eval()
    return model


def answer(model: nn.Module) -> np.ndarray:
    """Logits of the same tokens, for whatever model."""
    return np.array(model(tokens()).astype(mx.float32))


def answer_of_mlx_lm(folder: Path) -> np.ndarray:
    """What mlx_lm's own loader makes of a folder answers."""
    return answer(load_with_mlx_lm(folder, trust_remote_code=True)[0])


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Every weight by name, as bytes that can be compared."""
    return {name: np.array(value.view(mx.uint8)) for name, value in tree_flatten(model.parameters())}


def write_adapters(model: nn.Module, folder: Path, base: Path, **changes: Any) -> Path:
    """A folder as `mlx_lm.lora` writes it; the adapters are those of the model, drawn and not trained."""
    config = {
        "model": str(base), "fine_tune_type": "lora", "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0},
    } | changes  # fmt: skip
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    add_adapters(model, config)
    learned = {name: mx.random.normal(value.shape, key=mx.random.key(len(name))) * 0.1
               for name, value in tree_flatten(model.parameters()) if name.endswith(("lora_a", "lora_b"))}  # fmt: skip
    mx.save_safetensors(str(folder / "adapters.safetensors"), learned)
    model.load_weights(list(learned.items()), strict=False)
    return folder


def add_adapters(model: nn.Module, config: dict[str, Any]) -> None:
    """Put adapters around the matrices of a model, as `mlx_lm.lora` does."""
    linear_to_lora_layers(
        model, config["num_layers"], config["lora_parameters"], use_dora=config["fine_tune_type"] == "dora"
    )
