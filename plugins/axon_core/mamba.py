"""Mamba's mixer (Gu and Dao 2023), with the norms that Falcon Mamba and Jamba add to it."""

from __future__ import annotations

from math import inf

import mlx.core as mx

from axon_compose.registry import Dims, Shard
from axon_core.elementary import softplus
from axon_core.few_tokens import inherits
from axon_core.kernels import Selective
from axon_core.norms import RMSNorm
from axon_core.specs.mamba import MambaNorm, MambaOptions
from axon_core.ssm import AxonSSM, SSMConfig

__all__ = ["Mamba"]


class Mamba(AxonSSM):
    """Mamba's mixer of E channels with N states each.

        x, z    = in_proj(u)
        x       = silu(conv1d(x))
        r, B, C = x_proj(x)
        dt      = softplus(dt_proj(norm(r)))
        y       = out_proj(scan(x, dt, -exp(A_log), norm(B), norm(C), D) * silu(z))

    It differs from `AxonSSM` in the order of `x_proj`, in steps that are not clipped, and in the norms. Parameters
    are named and laid out as in mlx-lm's `MambaBlock` and `JambaMambaMixer`.

    Args:
        config: Sizes; `ssm_dt_min` and `ssm_dt_max` are not used.
        norm: Root-mean-square norms of the step, B and C: "none", "weightless" (Falcon Mamba) or "learned" (Jamba, in
            `dt_layernorm`, `b_layernorm` and `c_layernorm`).
        norm_eps: Added to the mean square in those.
        shard: As of `AxonSSM`.
    """

    def __init__(
        self, config: SSMConfig, norm: MambaNorm = "none", norm_eps: float = 1e-6, shard: Shard = Shard()
    ) -> None:
        super().__init__(config, shard)
        self.normalises = norm != "none"
        if self.normalises:
            learned = norm == "learned"
            self.dt_layernorm = RMSNorm(self.dt_rank, norm_eps, weight=learned)
            self.b_layernorm = RMSNorm(self.d_state, norm_eps, weight=learned)
            self.c_layernorm = RMSNorm(self.d_state, norm_eps, weight=learned)

    @classmethod
    def from_options(cls, options: MambaOptions, dims: Dims) -> Mamba:  # type: ignore[override]
        """Build from `MambaOptions`; input and output are as wide as the hidden size."""
        config = SSMConfig(
            hidden_dim=dims.hidden_size,
            ssm_intermediate_dim=options.channels(dims.hidden_size),
            ssm_d_state=options.d_state,
            ssm_d_conv=options.d_conv,
            ssm_dt_rank=options.dt_rank,
            ssm_conv_bias=options.conv_bias,
            ssm_bias=options.bias,
        )
        return cls(config, options.norm, options.norm_eps, dims.shard)

    def selective(self) -> Selective | None:
        """What kernels read of it; None where it does more."""
        read = self._selective() if self._alone and inherits(self, Mamba, "__call__", "_project") else None
        if read is None:
            return None
        names = ("dt_layernorm", "b_layernorm", "c_layernorm") if self.normalises else ()
        norms = tuple(self[name].stored() for name in names)
        if None in norms:
            return None
        return read._replace(step_first=True, norms=norms or (None, None, None), steps=(0.0, inf))

    def _project(self, x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Steps (B, L, E) in float32, and B and C (B, L, N)."""
        dt, B, C = mx.split(self._summed(self["x_proj"](x)), [self.dt_rank, self.dt_rank + self.d_state], axis=-1)
        if self.normalises:
            dt, B, C = self["dt_layernorm"](dt), self["b_layernorm"](B), self["c_layernorm"](C)
        return softplus(self["dt_proj"](dt.astype(mx.float32))), B, C
