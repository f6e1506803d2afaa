"""The three published layers as whole blocks: norms, the parts, and residuals.

Where a block is split over devices, they sum what each part gives before it is added to x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from axon_compose.registry import Dims, Shard
from axon_core.attention import SlidingWindowAttention
from axon_core.few_tokens import added
from axon_core.moe import MoE, Publish, SharedExpertMoE
from axon_core.norms import RMSNorm
from axon_core.ssm import AxonSSM

__all__ = ["AxonSSMBlock", "AxonSSMMoEBlock", "AxonSWAMoEBlock", "BlockConfig"]


@dataclass(frozen=True, slots=True)
class BlockConfig:
    """Sizes of the blocks; any object with the attributes that a block reads will do. Defaults are those of bit-axon.

    Attributes:
        hidden_dim: Width of input and output.
        ssm_intermediate_dim: Channels of the state space layer.
        ssm_d_state: States of each channel.
        ssm_d_conv: Tokens that the convolution sees, the current one included.
        num_heads: Attention heads.
        head_dim: Width of a head; `hidden_dim / num_heads` unless given.
        swa_window_size: Tokens that a query sees, itself included.
        moe_num_experts: Routed experts.
        moe_top_k: Experts that a token is sent to.
        moe_intermediate_dim: Width of each expert, the shared one included.
        moe_shared_expert: Whether a gated expert sees every token.
        rms_norm_eps: Added to the mean square in the norms.
    """

    hidden_dim: int = 2560
    ssm_intermediate_dim: int = 7680
    ssm_d_state: int = 16
    ssm_d_conv: int = 4
    num_heads: int = 32
    swa_window_size: int = 4096
    moe_num_experts: int = 8
    moe_top_k: int = 2
    moe_intermediate_dim: int = 4096
    moe_shared_expert: bool = True
    rms_norm_eps: float = 1e-6
    head_dim: int | None = None

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> BlockConfig:
        """The options of one block, completed by the hidden size."""
        sizes = dict(options)
        if hasattr(options, "channels"):
            sizes["ssm_intermediate_dim"] = options.channels(dims.hidden_size)
        return cls(hidden_dim=dims.hidden_size, **sizes)


def _experts(config: Any) -> MoE:
    sizes = (config.hidden_dim, config.moe_intermediate_dim, config.moe_num_experts, config.moe_top_k)
    return SharedExpertMoE(*sizes) if config.moe_shared_expert else MoE(*sizes, norm_topk=False)


class AxonSSMBlock(nn.Module):
    """`x + ssm(norm(x))`, without a feed-forward layer: the expansion of the state space layer takes its place.

    Args:
        config: `BlockConfig` or alike; reads `hidden_dim`, `rms_norm_eps` and the `ssm_` sizes.
        shard: For a block that is split over devices: which part this is.
    """

    def __init__(self, config: Any, shard: Shard = Shard()) -> None:
        super().__init__()
        self._shard = shard
        self.input_norm = RMSNorm(config.hidden_dim, config.rms_norm_eps)
        self.ssm = AxonSSM(config, shard)

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> AxonSSMBlock:
        """Build from `AxonSSMBlockOptions`."""
        return cls(BlockConfig.from_options(options, dims), dims.shard)

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> tuple[mx.array, Any]:
        """Transform `x` (B, L, D); mask and cache are those of `AxonSSM`."""
        return added(self.ssm, self.input_norm, x, self._shard, mask=mask, cache=cache)


class AxonSWAMoEBlock(nn.Module):
    """Sliding window attention with a residual, then experts with a residual.

    Args:
        config: `BlockConfig` or alike; reads `hidden_dim`, `rms_norm_eps`, `num_heads`, `swa_window_size` and the
            `moe_` sizes.
        shard: For a block that is split over devices: which part this is.
    """

    def __init__(self, config: Any, shard: Shard = Shard()) -> None:
        super().__init__()
        self._shard = shard
        self.input_norm = RMSNorm(config.hidden_dim, config.rms_norm_eps)
        self.attention = SlidingWindowAttention(
            config.hidden_dim, config.num_heads, config.swa_window_size, head_dim=getattr(config, "head_dim", None)
        )
        self.post_attention_norm = RMSNorm(config.hidden_dim, config.rms_norm_eps)
        self.moe = _experts(config)

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> AxonSWAMoEBlock:
        """Build from `AxonSWAMoEBlockOptions`."""
        return cls(BlockConfig.from_options(options, dims), dims.shard)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, cache: Any = None, publish: Publish = None
    ) -> tuple[mx.array, Any]:
        """Transform `x` (B, L, D); mask and cache are those of `SlidingWindowAttention`, `publish` is that of `MoE`."""
        x, cache = added(self.attention, self.input_norm, x, self._shard, mask=mask, cache=cache)
        return added(self.moe, self.post_attention_norm, x, self._shard, publish=publish)[0], cache


class AxonSSMMoEBlock(nn.Module):
    """Selective state space layer with a residual, then experts with a residual.

    Args:
        config: `BlockConfig` or alike; reads `hidden_dim`, `rms_norm_eps`, and the `ssm_` and `moe_` sizes.
        shard: For a block that is split over devices: which part this is.
    """

    def __init__(self, config: Any, shard: Shard = Shard()) -> None:
        super().__init__()
        self._shard = shard
        self.input_norm = RMSNorm(config.hidden_dim, config.rms_norm_eps)
        self.ssm = AxonSSM(config, shard)
        self.post_ssm_norm = RMSNorm(config.hidden_dim, config.rms_norm_eps)
        self.moe = _experts(config)

    @classmethod
    def from_options(cls, options: Any, dims: Dims) -> AxonSSMMoEBlock:
        """Build from `AxonSSMMoEBlockOptions`."""
        return cls(BlockConfig.from_options(options, dims), dims.shard)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, cache: Any = None, publish: Publish = None
    ) -> tuple[mx.array, Any]:
        """Transform `x` (B, L, D); mask and cache are those of `AxonSSM`, `publish` is that of `MoE`."""
        x, cache = added(self.ssm, self.input_norm, x, self._shard, mask=mask, cache=cache)
        return added(self.moe, self.post_ssm_norm, x, self._shard, publish=publish)[0], cache
