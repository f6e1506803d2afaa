"""Small models for the tests of the wiring."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

import axon_compose
from axon_compose.model import LanguageModel
from axon_compose.proof.check._subject import Subject

COMPONENTS: dict[str, dict[str, Any]] = {
    "ssm": {"type": "axon_ssm", "d_state": 4},
    "swa": {"type": "sliding_window_attention", "num_heads": 4, "num_kv_heads": 2, "window_size": 8},
    "wide": {"type": "sliding_window_attention", "num_heads": 4, "num_kv_heads": 2, "window_size": 12},
    "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2},
    "reader": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "kv_from": "attn"},
    "near": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "kv_from": "attn", "window_size": 5},
    "moe": {"type": "shared_expert_moe", "num_experts": 4, "top_k": 2, "intermediate_size": 32},
    "mlp": {"type": "mlp", "intermediate_size": 48},
}


def description(stack: str, **blocks: Any) -> dict[str, Any]:
    used = {name: section for name, section in COMPONENTS.items() if f"'{name}'" in repr(blocks)}
    dims = {"hidden_size": 32, "vocab_size": 97}
    return {"version": 1, "name": "wired", "dims": dims, "components": used, "blocks": blocks, "stack": stack}


def model(stack: str, seed: int = 0, **blocks: Any) -> LanguageModel:
    """A model whose parameters are all moved a little from where they begin."""
    return Subject(axon_compose.load(description(stack, **blocks)).plan(), seed).model


def flagship(seed: int = 0) -> LanguageModel:
    """State space, windows and experts in one stack."""
    return model("a b c", seed, a=["ssm"], b=["swa", "moe"], c=["ssm", "moe"])


def tokens(batch: int, length: int, seed: int = 0) -> mx.array:
    return mx.random.randint(0, 97, (batch, length), key=mx.random.key(seed))


def close(got: mx.array, wanted: mx.array, limit: float = 2e-5) -> bool:
    """Equal but for the order of float32 sums; see `axon_compose.proof.check._compare.EXACT`."""
    return bool((mx.abs(got - wanted).max() <= limit * mx.abs(wanted).max()).item())
