"""The built-in components, registered as any other plugin is."""

from __future__ import annotations

from collections.abc import Iterator

from axon_compose.registry import ComponentSpec, TaskSpec, hookimpl

__all__ = ["axon_components", "axon_tasks"]


@hookimpl
def axon_components() -> Iterator[ComponentSpec]:
    """The records of every built-in component."""
    # Imported here, so that `import axon_core.attention` alone loads one class and not every record.
    from axon_core.specs import (
        altup,
        attention,
        attention_residuals,
        blocks,
        branch_convolutions,
        compressed_attention,
        convolved_attention,
        embedding,
        engram,
        gated_delta_net,
        gated_streams,
        hyper_connections,
        kimi_delta_attention,
        kv_conv,
        latent_attention,
        laurel,
        lightning_attention,
        linear,
        mamba,
        mamba3,
        mlp,
        moe,
        multihead_mamba,
        ngram_embedding,
        norms,
        per_layer,
        residual_gains,
        rg_lru,
        rwkv7,
        self_gated_norm,
        short_conv,
        side_input,
        side_transformer,
        ssm,
    )

    for family in (
        norms,
        self_gated_norm,
        embedding,
        attention,
        latent_attention,
        compressed_attention,
        convolved_attention,
        ssm,
        short_conv,
        mamba,
        multihead_mamba,
        mamba3,
        gated_delta_net,
        kimi_delta_attention,
        kv_conv,
        lightning_attention,
        rwkv7,
        rg_lru,
        mlp,
        moe,
        ngram_embedding,
        engram,
        linear,
        per_layer,
        laurel,
        side_transformer,
        blocks,
        hyper_connections,
        gated_streams,
        altup,
        attention_residuals,
        residual_gains,
        side_input,
        branch_convolutions,
    ):
        yield from family.SPECS


@hookimpl
def axon_tasks() -> Iterator[TaskSpec]:
    """The records of every built-in skill task."""
    from axon_compose.learn.tasks.specs import FAMILIES

    for family in FAMILIES:
        yield from family.SPECS
