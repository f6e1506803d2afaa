"""What transfers claim to leave the same, on small copies of published models, in two types."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from axon_compose import Architecture, load
from axon_compose.plan.concrete import unroll
from axon_compose.registry import Registry
from tests.families import models
from tests.surgery.transplants import difference, logits, transplanted

#: Llama with biases and a stretched rotation, Qwen2 with biases of three projections, Qwen3 with norms of queries and
#: keys, Gemma 2 with windows and capped scores, and Qwen3-Next, whose layers are partly recurrent and partly experts.
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "qwen3_next")
ROUNDINGS = {mx.float32: 2e-5, mx.bfloat16: 4e-2}

Change = Callable[[dict[str, Any]], None]


def edited(name: str, kind: str, change: Change) -> Architecture:
    """A fixture with all its components of a type changed."""
    architecture = models.architecture(name)
    data = unroll(architecture.document, architecture.plan(), Registry.installed())
    for component in data["components"].values():
        if component["type"] == kind:
            change(component)
    return load(data)


@lru_cache(maxsize=len(FAMILIES) * len(ROUNDINGS))
def before(name: str, dtype: mx.Dtype) -> np.ndarray:
    """The logits of a fixture, for 12 tokens."""
    model = models.architecture(name).build(weights=models.FIXTURES / name)
    return logits(model, models.expected(name)[0][:1, :12], dtype)


def agrees(name: str, kind: str, change: Change, init: str = "transfer", **settings: Any) -> None:
    """The logits of an edited fixture are those of the fixture, up to roundings of each type."""
    source, new = models.architecture(name), edited(name, kind, change)
    built = transplanted(source, models.model(name), new, init, settings)
    tokens = models.expected(name)[0][:1, :12]
    for dtype, limit in ROUNDINGS.items():
        assert difference(logits(built, tokens, dtype), before(name, dtype)) <= limit, dtype


@pytest.mark.parametrize("name", FAMILIES)
def test_a_window_changes_nothing_within_it(name: str) -> None:
    def change(component: dict[str, Any]) -> None:
        component |= {"type": "sliding_window_attention", "window_size": component.get("window_size") or 12}
        component.setdefault("rope", True)

    agrees(name, "attention", change)


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_may_be_repeated(name: str) -> None:
    def change(component: dict[str, Any]) -> None:
        component.setdefault("head_dim", 12)
        component |= {"num_heads": 8, "num_kv_heads": 4}

    agrees(name, "attention", change, "repeat")


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_may_be_split(name: str) -> None:
    def change(component: dict[str, Any]) -> None:
        component.setdefault("head_dim", 12)
        component |= {"num_heads": 8, "num_kv_heads": 4, "v_head_dim": component["head_dim"] // 2}

    agrees(name, "attention", change, "split")


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_at_neutral_values_change_nothing(name: str) -> None:
    def change(component: dict[str, Any]) -> None:
        component |= {"sinks": True, "head_gain": True}
        component.setdefault("gate", "head")
        component["bias"] = True

    agrees(name, "attention", change)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("experts", "top_k", "parts"), [(4, 2, 1), (6, 6, 6), (6, 3, 3)])
def test_experts_are_the_layer_before_noise(name: str, experts: int, top_k: int, parts: int) -> None:
    def change(component: dict[str, Any]) -> None:
        size = component["intermediate_size"] // parts
        component |= {"type": "moe", "num_experts": experts, "top_k": top_k, "intermediate_size": size}

    agrees(name, "mlp", change)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shared_expert_is_the_layer(name: str) -> None:
    def change(component: dict[str, Any]) -> None:
        shared = {"shared_intermediate_size": component["intermediate_size"], "shared_gate": True}
        component |= {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 8, **shared}

    agrees(name, "mlp", change, "shared")


@pytest.mark.parametrize("name", FAMILIES)
def test_wider_layers_add_nothing_yet(name: str) -> None:
    def change(component: dict[str, Any]) -> None:
        component["intermediate_size"] += 8

    agrees(name, "mlp", change)


def test_norms_may_have_another_offset() -> None:
    def change(component: dict[str, Any]) -> None:
        component["offset"] = 0.0

    agrees("gemma2", "rms_norm", change)
