"""What cost sheets are held against: a model of every component with each example, and every shipped architecture."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from axon_compose import Architecture, load
from axon_compose.proof.check import shrink
from axon_compose.registry import Registry
from axon_compose.testing import component_model
from tests.shipped import VARIED, shipped

__all__ = ["ARCHITECTURES", "COMPONENTS", "component", "small"]

#: A hidden size that groups of 64 divide, so that quantisation has something to do.
DIMS = {"hidden_size": 64, "vocab_size": 97}
ARCHITECTURES = VARIED

_SOURCE = {"type": "attention", "num_heads": 4, "num_kv_heads": 2}
_LATENT = {
    "num_heads": 4,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "rope": {"learned": True},
}
_RWKV = {"head_dim": 16, "decay_low_rank_dim": 8, "a_low_rank_dim": 8, "v_low_rank_dim": 4, "gate_low_rank_dim": 8}
#: Options that no example has: those that read from elsewhere, and norms of single heads that a group divides.
_MORE: list[tuple[str, dict[str, Any]]] = [
    ("core/attention", {"kv_from": "source", "num_heads": 4, "qk_norm": True}),
    ("core/attention", {"kv_from": "source", "num_heads": 8, "head_dim": 16, "window_size": 5}),
    ("core/attention", {"num_heads": 2, "head_dim": 64, "qk_norm": {"per_head": True}}),
    ("core/latent_attention", {**_LATENT, "kv_from": "source", "alphas_from": "source"}),
    (
        "core/latent_attention",
        {**_LATENT, "kv_from": "source", "indexer": {"num_heads": 4, "head_dim": 16, "top_k": 12}},
    ),
    ("core/lightning_attention", {"num_heads": 4, "rope": {"fraction": 0.5}}),
    ("core/lightning_attention", {"num_heads": 2, "rope": True, "qk_norm": {"when": "after_rope", "over": "all"}}),
    ("core/lightning_attention", {"num_heads": 2, "rope": True, "qk_norm": True, "activation": "silu"}),
    ("core/lightning_attention", {"num_heads": 2, "head_dim": 64, "qk_norm": {"per_head": True}}),
    ("core/rwkv7_time_mix", {"value_from": "source", **_RWKV}),
    ("core/rwkv7_time_mix", {**_RWKV, "head_dim": 64}),
    ("core/token_embedding", {"per_layer": {"size": 16, "layers": 4, "vocab_size": 120}}),
    ("core/axon_swa_moe_block", {"num_heads": 4, "swa_window_size": 8, "moe_intermediate_dim": 64}),
    ("core/moe", {"num_experts": 4, "intermediate_size": 64, "num_shared_experts": 1}),
]
COMPONENTS = [
    pytest.param(name, options, id=f"{name.removeprefix('core/')}-{number}")
    for name, spec in Registry.installed().components().items()
    if name.startswith("core/")
    for number, options in enumerate([*spec.examples, *(options for other, options in _MORE if other == name)])
]


def component(name: str, options: dict[str, Any]) -> Architecture:
    """A small model around one component; the same for every test."""
    key = f"{name} {options!r}"
    if key not in _MADE:
        _MADE[key] = _around(name, options)
    return _MADE[key]


_MADE: dict[str, Architecture] = {}


def _around(name: str, options: dict[str, Any]) -> Architecture:
    spec = Registry.installed().component(name)
    source = _SOURCE if "attention" in name else {"type": name, **_RWKV}
    source = {**source, "head_dim": options.get("head_dim", 16)}
    if name == "core/latent_attention":
        source = {"type": name, **_LATENT}
    # Recurrent layers that rotate need a layer that counts tokens.
    wanted = "source" in options.values() or (name == "core/lightning_attention" and "rope" in options)
    sources = {"source": source} if wanted else {}
    described = component_model(name, spec.kind, options, DIMS, sources)
    if spec.name == "per_layer_input":
        described["embedding"] = {"per_layer": {"size": 16, "layers": 2}}
    if "per_layer" in options:
        described["components"]["token"] = {"type": "per_layer_input", "size": 16, "index": "=i"}
        described["blocks"]["around"].append("token")
    return load(described)


@cache
def small(name: str) -> Architecture:
    """A shipped architecture in small sizes."""
    return load(shrink(shipped(name).plan(), hidden_size=64))
