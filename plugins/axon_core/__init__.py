"""The built-in components, registered as any other plugin is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from axon_compose.registry import DeferredSpecs, TaskSpec, hookimpl

__all__ = ["axon_components", "axon_tasks"]

#: Modules of `axon_core.specs`, and the components whose records each of them has; `list` shows them in this order.
#: Those that stand where a file names none come early, so that looking for them imports little else.
_SPECS: Final = {
    "norms": "stream_norm rms_norm layer_norm",
    "embedding": "token_embedding lm_head",
    "self_gated_norm": "self_gated_norm",
    "attention": "attention sliding_window_attention",
    "latent_attention": "latent_attention",
    "compressed_attention": "compressed_attention",
    "convolved_attention": "convolved_attention",
    "ssm": "axon_ssm",
    "short_conv": "short_conv",
    "mamba": "mamba mamba2",
    "multihead_mamba": "multihead_mamba",
    "mamba3": "mamba3",
    "gated_delta_net": "gated_delta_net",
    "kimi_delta_attention": "kimi_delta_attention",
    "kv_conv": "kv_conv",
    "lightning_attention": "lightning_attention",
    "rwkv7": "rwkv7_time_mix rwkv7_channel_mix",
    "rg_lru": "rg_lru",
    "mlp": "mlp",
    "moe": "moe shared_expert_moe",
    "ngram_embedding": "ngram_embedding",
    "engram": "engram",
    "linear": "linear",
    "per_layer": "per_layer_input layer_scale",
    "laurel": "laurel",
    "side_transformer": "side_transformer",
    "blocks": "axon_ssm_block axon_swa_moe_block axon_ssm_moe_block",
    "hyper_connections": "hyper_connections",
    "gated_streams": "gated_streams",
    "altup": "altup",
    "attention_residuals": "attention_residuals",
    "residual_gains": "embedding_skip residual_gates",
    "side_input": "side_input",
    "branch_convolutions": "branch_convolutions",
}


@hookimpl
def axon_components() -> Iterator[DeferredSpecs]:
    """The records of every built-in component, each module imported when one of its components is named."""
    for module, names in _SPECS.items():
        yield DeferredSpecs(f"axon_core.specs.{module}:SPECS", tuple(names.split()))


@hookimpl
def axon_tasks() -> Iterator[TaskSpec]:
    """The records of every built-in skill task."""
    from axon_compose.learn.tasks.specs import FAMILIES

    for family in FAMILIES:
        yield from family.SPECS
