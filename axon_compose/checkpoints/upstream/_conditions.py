"""What a config.json says of RoPE, windows and groups, as conditions of known faults ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axon_compose.checkpoints.upstream._fault import Config

__all__ = ["groups", "least_step", "original_length", "rope", "rope_type", "slides"]


def rope(config: Config) -> Mapping[str, Any]:
    """What transformers 5, or 4, writes of RoPE; empty without it."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found if isinstance(found, Mapping) else {}


def rope_type(config: Config) -> str:
    """Its kind of scaling."""
    return str(rope(config).get("rope_type") or rope(config).get("type") or "default")


def original_length(config: Config) -> int:
    """Tokens of a context before its scaling."""
    name = "original_max_position_embeddings"
    return int(config.get(name) or rope(config).get(name) or config["max_position_embeddings"])


def slides(config: Config, tokens: int) -> bool:
    """Whether a window is shorter than the prompt."""
    return bool(config.get("sliding_window")) and tokens > config["sliding_window"]


def least_step(config: Config) -> float:
    """`time_step_min`, or its default."""
    return float(config.get("time_step_min", 0.001))


def groups(config: Config) -> int:
    """Groups of a Mamba-2 layer."""
    return int(config.get("mamba_n_groups") or config.get("n_groups") or 1)
