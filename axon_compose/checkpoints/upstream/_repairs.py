"""Ways around known faults that need more than a field: repairs of mlx-lm's loaded models, computed settings."""

from __future__ import annotations

import math
from typing import Any, Final

import mlx.core as mx
import mlx.nn as nn

from axon_compose.checkpoints.upstream._fault import Config
from axon_compose.checkpoints.upstream._fields import older_fields

__all__ = [
    "falcon_multipliers",
    "first_kinds",
    "head_norm_eps",
    "longer_cache",
    "norm_eps",
    "raise_bias",
    "rounded_scale",
]

#: What mlx-lm takes where config.json does not say it.
_INTERVALS: Final = {"cohere2": 4, "gemma3_text": 6}


def first_kinds(config: Config) -> list[str]:
    """The kinds of layers by `sliding_window_pattern` alone, which may follow from `layer_types`."""
    flat = {name: value for name, value in config.items() if name != "text_config"}
    given = config.get("sliding_window_pattern") or older_fields(flat).get("sliding_window_pattern")
    interval = given or _INTERVALS.get(str(config.get("model_type")), 1)
    count = range(1, config["num_hidden_layers"] + 1)
    return ["sliding_attention" if at % interval else "full_attention" for at in count]


def rounded_scale(config: Config) -> list[str]:
    """The setting for an embedding whose scale has the precision of bfloat16."""
    scale: Any = mx.array(math.sqrt(config["hidden_size"]), mx.bfloat16).item()
    return [f"embedding.scale={scale}"]


def raise_bias(model: nn.Module, config: Config) -> None:
    """Add the same to every correction bias: the order stays, and no score that counts is below zero any more."""
    for module in model.modules():
        if "e_score_correction_bias" in module:
            bias = module["e_score_correction_bias"]
            module["e_score_correction_bias"] = bias + mx.maximum(-bias.min(), 0)


def norm_eps(model: nn.Module, config: Config) -> None:
    """The eps of config.json for every norm."""
    for module in model.modules():
        if isinstance(module, nn.RMSNorm):
            module.eps = config["layer_norm_epsilon"]


def head_norm_eps(model: nn.Module, config: Config) -> None:
    """An eps that grows with the heads, as their variance does."""
    for layer in model.layers:
        layer.attn.g_norm.eps = config["head_dim"] * config["norm_eps"]


def falcon_multipliers(model: nn.Module, config: Config) -> None:
    """The factors that were not folded into the weights."""
    for layer in model.layers:
        attn, mlp, mamba = layer.self_attn, layer.feed_forward, layer.mamba
        attn.k_proj.weight = attn.k_proj.weight * config["key_multiplier"]
        attn.v_proj.weight = attn.v_proj.weight * config["attention_in_multiplier"]
        for linear, factor in (
            (attn.k_proj, config["key_multiplier"]),
            (attn.o_proj, config["attention_out_multiplier"]),
            (mlp.gate_proj, config["mlp_multipliers"][0]),
            (mlp.down_proj, config["mlp_multipliers"][1]),
            (mamba.in_proj, model.model._mup_vector),
            (mamba.out_proj, config["ssm_out_multiplier"]),
        ):
            if "bias" in linear:
                linear.bias = linear.bias * factor


def longer_cache(model: nn.Module, config: Config) -> None:
    """Rotating caches that keep what the mask of a window lets through."""
    model.config.window_size += 1
