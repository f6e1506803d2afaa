"""The three published layers as whole blocks, norms and residuals included: options and records."""

from math import prod
from typing import Any, Final, Self

from pydantic import Field, model_validator

from axon_compose.registry import KV, Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import attention_flops, pairs, product_flops
from axon_core.specs._learning import ATTENTION, SHARED_MOE, SSM, inside, merged
from axon_core.specs._moe_options import MoEOptions, SharedExpertMoEOptions
from axon_core.specs._saved import each, norm_saved
from axon_core.specs._saved_attention import scores_saved
from axon_core.specs._small import limited
from axon_core.specs.moe import moe_active, moe_flops, moe_params, moe_saved, moe_touched
from axon_core.specs.splits.blocks import ssm_block_split, ssm_moe_block_split, swa_moe_block_split
from axon_core.specs.ssm import ssm_flops, ssm_params, ssm_recomputed, ssm_saved, ssm_state

__all__ = ["SPECS", "AxonSSMBlockOptions", "AxonSSMMoEBlockOptions", "AxonSWAMoEBlockOptions"]


Shapes = dict[str, tuple[int, ...]]


class _Norm(Options):
    rms_norm_eps: float = Field(1e-6, gt=0, description="Added to the mean square in the norms.")


class _SSM(Options):
    ssm_d_state: int = Field(16, gt=0, description="States of each channel.")
    ssm_d_conv: int = Field(4, gt=0, description="Tokens that the convolution sees, the current one included.")
    ssm_intermediate_dim: int | None = Field(
        None, gt=0, description="Channels; three times the hidden size unless given."
    )

    def channels(self, hidden_size: int) -> int:
        """Number of channels."""
        return self.ssm_intermediate_dim or 3 * hidden_size


class _MoE(Options):
    moe_num_experts: int = Field(8, gt=0, description="Number of routed experts.")
    moe_top_k: int = Field(2, gt=0, description="Experts that a token is sent to.")
    moe_intermediate_dim: int = Field(gt=0, description="Width of each expert, the shared one included.")
    moe_shared_expert: bool = Field(True, description="Have a gated expert that sees every token.")

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.moe_top_k > self.moe_num_experts:
            raise ValueError(
                f"`moe_top_k` ({self.moe_top_k}) is larger than `moe_num_experts` ({self.moe_num_experts})"
            )
        return self

    def experts(self) -> MoEOptions:
        """Options of the mixture itself."""
        sizes = {
            "num_experts": self.moe_num_experts,
            "top_k": self.moe_top_k,
            "intermediate_size": self.moe_intermediate_dim,
        }
        if self.moe_shared_expert:
            return SharedExpertMoEOptions.model_validate(sizes).general()
        return MoEOptions.model_validate(sizes)


class AxonSSMBlockOptions(_SSM, _Norm):
    """Norm, AxonSSM, residual."""


class AxonSWAMoEBlockOptions(_MoE, _Norm):
    """Norm, sliding window attention, residual; norm, experts, residual."""

    num_heads: int = Field(gt=0, description="Number of heads.")
    head_dim: int | None = Field(None, gt=0, description="Width of a head; `hidden_size / num_heads` unless given.")
    swa_window_size: int = Field(gt=0, description="Tokens that a query sees, itself included.")


class AxonSSMMoEBlockOptions(_MoE, _SSM, _Norm):
    """Norm, AxonSSM, residual; norm, experts, residual."""


def _inside(name: str, shapes: Shapes) -> Shapes:
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


def _ssm_inner(options: _SSM, dims: Dims) -> Shapes:
    hidden = dims.hidden_size
    return ssm_params(hidden, options.channels(hidden), options.ssm_d_state, options.ssm_d_conv, 1)


def _ssm(options: _SSM, dims: Dims) -> Shapes:
    return {"input_norm.weight": (dims.hidden_size,), **_inside("ssm", _ssm_inner(options, dims))}


def _attention(options: AxonSWAMoEBlockOptions, dims: Dims) -> Shapes:
    hidden = dims.hidden_size
    width = options.num_heads * _head_dim(options, dims)
    inner: Shapes = {f"{name}_proj.weight": (width, hidden) for name in "qkv"}
    inner["o_proj.weight"] = (hidden, width)
    return {"input_norm.weight": (hidden,), **_inside("attention", inner)}


def _experts(norm: str, options: _MoE, dims: Dims) -> Shapes:
    return {
        f"{norm}.weight": (dims.hidden_size,),
        **_inside("moe", moe_params(options.experts(), dims.hidden_size)),
    }


def _head_dim(options: AxonSWAMoEBlockOptions, dims: Dims) -> int:
    if options.head_dim:
        return options.head_dim
    width, rest = divmod(dims.hidden_size, options.num_heads)
    if rest:
        raise ValueError(f"`hidden_size` ({dims.hidden_size}) is not a multiple of `num_heads` ({options.num_heads})")
    return int(width)


def _ssm_block(options: AxonSSMBlockOptions, dims: Dims) -> Shapes:
    return _ssm(options, dims)


def _swa_moe_block(options: AxonSWAMoEBlockOptions, dims: Dims) -> Shapes:
    return _attention(options, dims) | _experts("post_attention_norm", options, dims)


def _ssm_moe_block(options: AxonSSMMoEBlockOptions, dims: Dims) -> Shapes:
    return _ssm(options, dims) | _experts("post_ssm_norm", options, dims)


def _active(shapes: Shapes, options: _MoE, dims: Dims) -> int:
    """Everything outside the experts, and what a token uses of those."""
    outside = sum(prod(shape) for name, shape in shapes.items() if not name.startswith("moe."))
    return outside + moe_active(options.experts(), dims.hidden_size)


def _ssm_flops(options: _SSM, dims: Dims, tokens: int, context: int) -> int:
    return ssm_flops(_ssm_inner(options, dims), tokens)


def _swa_moe_flops(options: AxonSWAMoEBlockOptions, dims: Dims, tokens: int, context: int) -> int:
    width, seen = _head_dim(options, dims), pairs(tokens, context, options.swa_window_size)
    attended = product_flops(_attention(options, dims), tokens) + attention_flops(options.num_heads, width, width, seen)
    return attended + moe_flops(options.experts(), dims.hidden_size, tokens)


def _ssm_moe_flops(options: AxonSSMMoEBlockOptions, dims: Dims, tokens: int, context: int) -> int:
    return _ssm_flops(options, dims, tokens, context) + moe_flops(options.experts(), dims.hidden_size, tokens)


def _ssm_saved(options: _SSM, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    return norm_saved(tokens, dims.hidden_size) + ssm_saved(_ssm_inner(options, dims), tokens, dtype, clipped=True)


def _ssm_recomputed(options: _SSM, dims: Dims, batch: int, tokens: int) -> int:
    return ssm_recomputed(_ssm_inner(options, dims), batch, tokens)


def _experts_saved(options: _MoE, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    hidden = dims.hidden_size
    return norm_saved(tokens, hidden) + moe_saved(options.experts(), hidden, tokens, dtype)


def _swa_moe_saved(options: AxonSWAMoEBlockOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    hidden, width = dims.hidden_size, options.num_heads * _head_dim(options, dims)
    projected = each(tokens, input=hidden, **dict.fromkeys(("queries", "keys", "values", "attended"), width))
    attended = projected + scores_saved(tokens, options.num_heads, options.swa_window_size)
    return norm_saved(tokens, hidden) + attended + _experts_saved(options, dims, tokens, dtype)


def _ssm_moe_saved(options: AxonSSMMoEBlockOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    return _ssm_saved(options, dims, tokens, dtype) + _experts_saved(options, dims, tokens, dtype)


def _touched(options: _MoE, dims: Dims, tokens: int) -> dict[str, int]:
    inner = moe_touched(options.experts(), dims.hidden_size, tokens)
    return {f"moe.{name}": rows for name, rows in inner.items()}


def _state(options: _SSM, dims: Dims) -> State:
    return ssm_state(options.channels(dims.hidden_size), options.ssm_d_state, options.ssm_d_conv)


def _window(options: AxonSWAMoEBlockOptions, dims: Dims) -> KV:
    return KV(options.num_heads, _head_dim(options, dims), window=options.swa_window_size)


def _shrink(options: AxonSSMBlockOptions | AxonSWAMoEBlockOptions | AxonSSMMoEBlockOptions, dims: Dims) -> Any:
    limits = {"ssm_d_state": 4, "ssm_d_conv": 4, "swa_window_size": 8, "moe_num_experts": 4, "moe_top_k": 2}
    small = written(options) | limited(options, limits | {"ssm_intermediate_dim": 48, "moe_intermediate_dim": 32})
    if isinstance(options, AxonSWAMoEBlockOptions):
        # A power of two, for it has to divide whatever small hidden size there is.
        small["num_heads"] = 4 if options.num_heads >= 4 else min(options.num_heads, 2)
        small |= limited(options, {"head_dim": 16})
    return small


_SSM_FLOAT32: Final = ("ssm.A_log", "ssm.D")
_ROUTER: Final = ("moe.gate", "moe.shared_expert_gate")

SPECS: Final = (
    ComponentSpec(
        name="axon_ssm_block",
        kind="block",
        options=AxonSSMBlockOptions,
        module="axon_core.blocks:AxonSSMBlock.from_options",
        learning=inside("ssm", SSM),
        summary="A whole layer: norm, selective state space layer, residual.",
        cache=_state,
        params=_ssm_block,
        flops=_ssm_flops,
        saved=_ssm_saved,
        recomputed=_ssm_recomputed,
        float32=_SSM_FLOAT32,
        split=ssm_block_split,
        shrink=_shrink,
        examples=({}, {"ssm_d_state": 4, "ssm_d_conv": 2, "ssm_intermediate_dim": 48, "rms_norm_eps": 1e-5}),
    ),
    ComponentSpec(
        name="axon_swa_moe_block",
        kind="block",
        options=AxonSWAMoEBlockOptions,
        module="axon_core.blocks:AxonSWAMoEBlock.from_options",
        learning=merged(inside("attention", ATTENTION), inside("moe", SHARED_MOE)),
        summary="A whole layer: sliding window attention, then experts with a shared one.",
        cache=_window,
        params=_swa_moe_block,
        flops=_swa_moe_flops,
        saved=_swa_moe_saved,
        touched=_touched,
        active=lambda options, dims: _active(_swa_moe_block(options, dims), options, dims),
        window=lambda options, dims: options.swa_window_size,
        mask="banded",
        unquantized=_ROUTER,
        split=swa_moe_block_split,
        shrink=_shrink,
        examples=(
            {"num_heads": 4, "swa_window_size": 8, "moe_num_experts": 4, "moe_intermediate_dim": 32},
            {"num_heads": 2, "swa_window_size": 4, "moe_intermediate_dim": 32, "moe_shared_expert": False},
            {"num_heads": 2, "head_dim": 24, "swa_window_size": 8, "moe_intermediate_dim": 32, "moe_top_k": 1},
        ),
    ),
    ComponentSpec(
        name="axon_ssm_moe_block",
        kind="block",
        options=AxonSSMMoEBlockOptions,
        module="axon_core.blocks:AxonSSMMoEBlock.from_options",
        learning=merged(inside("ssm", SSM), inside("moe", SHARED_MOE)),
        summary="A whole layer: selective state space layer, then experts with a shared one.",
        cache=_state,
        params=_ssm_moe_block,
        flops=_ssm_moe_flops,
        saved=_ssm_moe_saved,
        recomputed=_ssm_recomputed,
        touched=_touched,
        active=lambda options, dims: _active(_ssm_moe_block(options, dims), options, dims),
        float32=_SSM_FLOAT32,
        unquantized=_ROUTER,
        split=ssm_moe_block_split,
        shrink=_shrink,
        examples=({"moe_num_experts": 4, "moe_intermediate_dim": 32}, {"moe_intermediate_dim": 32, "moe_top_k": 1}),
    ),
)
