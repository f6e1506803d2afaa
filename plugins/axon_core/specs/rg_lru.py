"""The recurrent block of Griffin: options and record."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options, State, written
from axon_core.specs._flops import convolution_flops, product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import activation_saved, convolution_saved, each, in_float32
from axon_core.specs._small import limited
from axon_core.specs.splits.recurrent import griffin_split

__all__ = ["SPECS", "RGLRUOptions"]


class RGLRUOptions(Options):
    """Griffin's recurrent block: convolution, real-gated linear recurrent unit, GELU branch (RecurrentGemma)."""

    num_heads: int = Field(
        gt=0, description="Equal parts of the channels, each with matrices of its own for its gates."
    )
    lru_width: int | None = Field(
        default=None, gt=0, description="Number of channels, a multiple of `num_heads`; the hidden size unless given."
    )
    d_conv: int = Field(default=4, gt=0, description="Tokens that the convolution sees, the current one included.")

    def channels(self, hidden_size: int) -> int:
        """Number of channels.

        Raises:
            ValueError: They are not a multiple of the number of heads.
        """
        channels = self.lru_width or hidden_size
        if channels % self.num_heads:
            name = "lru_width" if self.lru_width else "hidden_size"
            raise ValueError(f"`{name}` ({channels}) is not a multiple of `num_heads` ({self.num_heads})")
        return channels


def _params(options: RGLRUOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    hidden, channels = dims.hidden_size, options.channels(dims.hidden_size)
    heads, width = options.num_heads, channels // options.num_heads
    shapes: dict[str, tuple[int, ...]] = {
        "linear_x.weight": (channels, hidden),
        "linear_y.weight": (channels, hidden),
        "linear_out.weight": (hidden, channels),
        "conv_1d.weight": (channels, options.d_conv, 1),
    }
    shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    for gate in ("input", "recurrent"):
        shapes[f"rg_lru.{gate}_gate_weight"] = (heads, width, width)
        shapes[f"rg_lru.{gate}_gate_bias"] = (heads, width)
    return shapes | {"rg_lru.recurrent_param": (channels,)}


def _flops(options: RGLRUOptions, dims: Dims, tokens: int, context: int) -> int:
    """The gates are products of blocks; the recurrence is elementwise work."""
    channels = options.channels(dims.hidden_size)
    gates = 2 * 2 * tokens * channels * (channels // options.num_heads)
    return product_flops(_params(options, dims), tokens) + gates + convolution_flops(channels, options.d_conv, tokens)


def _saved(options: RGLRUOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """The branch, the convolution, and around the recurrence both gates, the decays and the states in float32."""
    channels = options.channels(dims.hidden_size)
    found = each(tokens, input=dims.hidden_size, output=channels)
    found += convolution_saved(tokens, channels, options.d_conv, dtype)
    found += activation_saved(tokens, channels, "gelu_tanh", gated=False)
    found += in_float32(tokens, gates=2 * channels, log_decays=channels, factors=3 * channels, driven=channels)
    found += in_float32(tokens, states=channels)
    return found if dtype == "float32" else found + each(tokens, gate_input=channels, read=channels)


def _cache(options: RGLRUOptions, dims: Dims) -> State:
    channels = options.channels(dims.hidden_size)
    return State(
        (
            Array("conv", (options.d_conv - 1, channels)),
            Array("lru", (channels,), "float32"),
            Array("seen", (1,), "float32"),
        )
    )


def _shrink(options: RGLRUOptions, dims: Dims) -> dict[str, Any]:
    """Two heads at most, which divide any small width; `d_conv` stays, for it decides what the cache holds."""
    width = {"lru_width": 48} if options.lru_width is not None else {}
    return written(options) | limited(options, {"num_heads": 2, "d_conv": 4}) | width


SPECS: Final = (
    ComponentSpec(
        name="rg_lru",
        kind="layer",
        options=RGLRUOptions,
        module="axon_core.rg_lru:GriffinRecurrent.from_options",
        learning=learned(("linear_out.weight",), own=("conv_1d.weight",), stacked=("rg_lru.*_gate_weight",)),
        summary="Griffin's recurrent block: causal convolution, gated diagonal recurrence, GELU branch.",
        source='De et al. 2024, "Griffin" (arXiv:2402.19427)',
        cache=_cache,
        params=_params,
        flops=_flops,
        saved=_saved,
        split=griffin_split,
        shrink=_shrink,
        examples=({"num_heads": 2}, {"num_heads": 4, "lru_width": 48, "d_conv": 2}, {"num_heads": 1, "d_conv": 1}),
    ),
)
