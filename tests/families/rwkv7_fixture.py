"""The fixture of rwkv7, which transformers does not have.

Names and shapes are those of the checkpoints of flash-linear-attention (fla-hub/rwkv7-*), the logits are those of
`rwkv7_reference.py`.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from rwkv7_reference import rwkv7_logits
from safetensors.numpy import save_file

CONFIG: dict[str, Any] = {
    "architectures": ["RWKV7ForCausalLM"],
    "model_type": "rwkv7",
    "vocab_size": 96,
    "hidden_size": 48,
    "head_dim": 16,
    "num_heads": None,
    "num_hidden_layers": 4,
    "intermediate_size": 80,
    "hidden_ratio": 4.0,
    "hidden_act": "sqrelu",
    "decay_low_rank_dim": 10,
    "a_low_rank_dim": 6,
    "v_low_rank_dim": 5,
    "gate_low_rank_dim": 12,
    "value_dim": [48, 48, 48, 48],
    "norm_eps": 1e-4,
    "norm_first": True,
    "norm_bias": True,
    "attn": None,
    "attn_mode": "chunk",
    "fuse_norm": False,
    "fuse_cross_entropy": True,
    "max_position_embeddings": 2048,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "use_cache": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "torch_dtype": "float32",
    "transformers_version": "4.51.0",
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors."""
    D, F, V, N = (CONFIG[name] for name in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers"))
    found: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (V, D), "lm_head.weight": (V, D)}
    norms = ["model.norm"]
    for index in range(N):
        layer = f"model.layers.{index}"
        norms += [
            f"{layer}.{name}" for name in ("pre_norm", "attn_norm", "ffn_norm") if name != "pre_norm" or index == 0
        ]
        norms.append(f"{layer}.attn.g_norm")
        found |= {f"{layer}.attn.x_{name}": (1, 1, D) for name in "rwkvag"}
        found |= {f"{layer}.attn.{name}_proj.weight": (D, D) for name in "rkvo"}
        found |= {f"{layer}.attn.k_k": (D,), f"{layer}.attn.k_a": (D,)}
        found[f"{layer}.attn.r_k"] = (D // CONFIG["head_dim"], CONFIG["head_dim"])
        for name, rank in {"w": "decay", "a": "a", "v": "v", "g": "gate"}.items():
            if name == "v" and index == 0:
                continue
            inner, lora = CONFIG[f"{rank}_low_rank_dim"], f"{layer}.attn.{name}_lora.lora"
            found |= {f"{lora}.0.weight": (inner, D), f"{lora}.2.weight": (D, inner)}
            found |= {f"{lora}.2.bias": (D,)} if name != "g" else {}
        found |= {f"{layer}.ffn.x_k": (D,), f"{layer}.ffn.key.weight": (F, D), f"{layer}.ffn.value.weight": (D, F)}
    return found | {f"{norm}.{leaf}": (D,) for norm in norms for leaf in ("weight", "bias")}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of the scale of trained models."""
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    normal, leaf = rng.standard_normal(shape), name.rsplit(".", 1)[-1]
    if leaf.startswith("x_"):
        return rng.uniform(0.0, 1.0, shape)
    if "w_lora" in name and leaf == "bias":
        return rng.uniform(-5.5, 1.0, shape)
    if leaf in ("k_k", "k_a"):
        return {"k_k": 0.71, "k_a": 1.02}[leaf] + 0.2 * normal
    if "norm" in name and leaf == "weight":
        return 1.0 + 0.2 * normal
    if leaf in ("bias", "r_k"):
        return (0.7 if "v_lora" in name else 0.0) + 0.2 * normal
    return normal if "embeddings" in name else normal / np.sqrt(shape[-1])


def write(folder: Path) -> str:
    """Write the folder; the answer is a row of the table of fixtures."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: draw(name, shape).astype(np.float32) for name, shape in shapes().items()}
    tokens = np.random.default_rng([0, 1]).integers(3, CONFIG["vocab_size"], (2, 40)).astype(np.int32)
    logits = rwkv7_logits(tensors, CONFIG, tokens)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"tokens": tokens, "logits": logits.astype(np.float32)}, folder / "expected.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2, sort_keys=True) + "\n")
    size = (folder / "model.safetensors").stat().st_size // 1024
    return f"| rwkv7 | {size} | {logits.std():.2f} | | | | |"
