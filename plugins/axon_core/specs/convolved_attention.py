"""Attention to convolved keys and values: options and record."""

from dataclasses import replace
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from axon_compose.registry import Array, CacheSpec, Composite, Dims, State
from axon_core.specs._flops import convolution_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import convolution_saved
from axon_core.specs._small import limited
from axon_core.specs.attention import SPECS as PLAIN
from axon_core.specs.attention import AttentionOptions, head_shape
from axon_core.specs.splits.attention import convolved_split

__all__ = ["SPECS", "ConvolvedAttentionOptions", "TapsName"]

#: What has taps of its own in a convolution of keys or values.
TapsName = Literal["head", "channel"]

_PLAIN: Final = PLAIN[0]


class ConvolvedAttentionOptions(AttentionOptions):
    """Attention whose keys and values are convolved over a few tokens before norm and rotation."""

    # Over one token it would see no other.
    d_conv: int = Field(default=2, gt=1, description="Tokens that the convolutions see, the current one included.")
    taps: TapsName = Field(
        default="head", description="Whether the channels of a head share taps (Baichuan M1), or each has its own."
    )
    conv_residual: bool = Field(default=False, description="Add what a convolution reads to what it gives (Inkling).")

    @model_validator(mode="after")
    def _own_keys(self) -> Self:
        for name in ("kv_from", "indexer", "v_head_dim"):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` does not go with convolved keys and values")
        if self.k_eq_v:
            raise ValueError("`k_eq_v` does not go with convolved keys and values")
        return self


def _params(options: ConvolvedAttentionOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    _, kv_heads, width = head_shape(options, dims)
    of_heads = options.taps == "head"
    taps = (1, 1, kv_heads, 1, options.d_conv) if of_heads else (kv_heads * width, options.d_conv, 1)
    return {**_PLAIN.params(options, dims), "k_conv.weight": taps, "v_conv.weight": taps}


def _channels(options: ConvolvedAttentionOptions, dims: Dims) -> int:
    """Of keys and values together."""
    _, kv_heads, width = head_shape(options, dims)
    return 2 * kv_heads * width


def _flops(options: ConvolvedAttentionOptions, dims: Dims, tokens: int, context: int) -> int:
    plain = _PLAIN.flops(options, dims, tokens, context) if _PLAIN.flops else 0
    return (plain or 0) + convolution_flops(_channels(options, dims), options.d_conv, tokens)


def _saved(options: ConvolvedAttentionOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    plain = _PLAIN.saved(options, dims, tokens, dtype) if _PLAIN.saved else ()
    convolution = convolution_saved(tokens, _channels(options, dims), options.d_conv, dtype)
    # No activation follows, which would need what the convolution gives.
    return (*(plain or ()), *(array for array in convolution if array.name != "convolved"))


def _cache(options: ConvolvedAttentionOptions, dims: Dims) -> CacheSpec:
    plain = _PLAIN.cache(options, dims)
    assert plain is not None  # only readers of other keys have none
    before = (options.d_conv - 1, _channels(options, dims) // 2)
    return Composite((plain, State((Array("keys", before), Array("values", before)))))


def _shrink(options: ConvolvedAttentionOptions, dims: Dims) -> dict[str, Any]:
    """As of attention; `d_conv` stays, for it decides what the cache holds."""
    assert _PLAIN.shrink is not None
    return {**_PLAIN.shrink(options, dims), **limited(options, {"d_conv": 4})}


SPECS: Final = (
    replace(
        _PLAIN,
        name="convolved_attention",
        options=ConvolvedAttentionOptions,
        module="axon_core.convolved_attention:ConvolvedAttention.from_options",
        summary="Attention whose keys and values are convolved over a few tokens (Baichuan M1, Inkling).",
        source="Baichuan 2025, Baichuan-M1 (arXiv:2502.12671)",
        learning=learned(("o_proj.weight",), own=("k_conv.weight", "v_conv.weight"), undecayed=("*norm.weight",)),
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        reads={"offset": None},
        accepts=None,
        chosen=None,
        unquantized=("q_norm", "k_norm", "k_conv", "v_conv"),
        transfers=(),
        split=convolved_split(_params),
        shrink=_shrink,
        examples=(
            {"num_heads": 4},
            {"num_heads": 4, "num_kv_heads": 2, "d_conv": 4, "qk_norm": True},
            {"num_heads": 4, "num_kv_heads": 2, "window_size": 8, "head_dim": 24},
            {
                "num_heads": 4,
                "num_kv_heads": 2,
                "rope": False,
                "taps": "channel",
                "conv_residual": True,
                "window_size": 8,
                "relative": {"rank": 3, "extent": 8},
            },
        ),
    ),
)
