"""Options of what happens to single heads: biases of the projections, norms of queries, keys and values."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Dims, Options

__all__ = [
    "GATE_HELP",
    "KV_HEADS_HELP",
    "LOG_SCALING_HELP",
    "OFFSET_HELP",
    "SINKS_HELP",
    "TEMPERATURE_HELP",
    "ALiBi",
    "ALiBiOptions",
    "Bias",
    "BiasOptions",
    "GateActivationName",
    "GateName",
    "HeadNormOptions",
    "QKNorm",
    "RelativeOptions",
    "TemperatureOptions",
    "VNorm",
    "VNormOptions",
    "check_groups",
    "check_offset",
    "head_shape",
    "numbers_of_heads",
    "switch",
]

GATE_HELP: Final = (
    "Multiply the output, before its projection, by the sigmoid of a projection of the input: "
    "elementwise, or one number for each head."
)
KV_HEADS_HELP: Final = "Number of key/value heads, a divisor of `num_heads`; as many as those unless given."
OFFSET_HELP: Final = "Added to the learned scale; 1 for weights around zero, as Gemma and Nemotron store them."
LOG_SCALING_HELP: Final = (
    "Learn a factor of each head's queries that grows with the logarithm of their position, "
    "`scale * log(position + 1) + bias`."
)
SINKS_HELP: Final = (
    "Learn a score for each head that takes part in the softmax but has no value: the head may attend to nothing."
)
TEMPERATURE_HELP: Final = "Factor of queries far into a long context; none unless given."

#: Of what a gate on the output of attention has one number.
GateName = Literal["elementwise", "head"]
GateActivationName = Literal["sigmoid", "softplus"]


def check_groups(heads: int, kv_heads: int) -> None:
    """Refuse query heads that cannot share key/value heads in equal parts.

    Raises:
        ValueError: In plain words.
    """
    if heads % kv_heads:
        raise ValueError(f"`num_heads` ({heads}) is not a multiple of `num_kv_heads` ({kv_heads})")


def numbers_of_heads(options: Any, heads: int) -> dict[str, tuple[int]]:
    """Shapes of what attention learns a number of for each head, by their names within it."""
    names = [name for name in ("sinks", "head_gain") if getattr(options, name, False)]
    names += ["log_scaling.scale", "log_scaling.bias"] if options.log_scaling else []
    return dict.fromkeys(names, (heads,))


def check_offset(offset: float, weight: bool) -> None:
    """Refuse an offset of a scale that is not learned.

    Raises:
        ValueError: In plain words.
    """
    if offset and not weight:
        raise ValueError("`offset` is added to the learned scale: it needs `weight: true`")


def head_shape(options: Any, dims: Dims) -> tuple[int, int, int]:
    """Number of heads, number of key/value heads, and width of a head.

    Args:
        options: Of attention.
        dims: Of the model.

    Raises:
        ValueError: The hidden size cannot be divided, or rope does not fit the width.
    """
    heads, hidden = options.num_heads, dims.hidden_size
    if options.head_dim is None and hidden % heads:
        raise ValueError(f"`hidden_size` ({hidden}) is not a multiple of `num_heads` ({heads}); give `head_dim`")
    width = options.head_dim or hidden // heads
    if options.rope is not None:
        options.rope.rotated(width)
    return heads, options.num_kv_heads or heads, width


class BiasOptions(Options):
    """Which projections have a bias."""

    q: bool = Field(default=False, description="Bias of the queries.")
    k: bool = Field(default=False, description="Bias of the keys.")
    v: bool = Field(default=False, description="Bias of the values.")
    o: bool = Field(default=False, description="Bias of the output.")
    g: bool = Field(default=False, description="Bias of the gate; not included in `bias: true`.")


class HeadNormOptions(Options):
    """Norm of queries and keys."""

    eps: float = Field(default=1e-6, gt=0, description="Added to the mean square.")
    type: Literal["rms_norm", "layer_norm"] = Field(
        default="rms_norm", description="layer_norm also subtracts the mean."
    )
    over: Literal["head", "all"] = Field(
        default="head", description="head: each head by itself; all: all heads together, before they are split."
    )
    when: Literal["before_rope", "after_rope"] = Field(
        default="before_rope", description="Whether the norm or the rotation comes first."
    )
    weight: bool = Field(default=True, description="Learn a scale for each dimension.")
    bias: bool = Field(default=False, description="layer_norm: learn a shift for each dimension.")
    offset: float = Field(default=0.0, description=OFFSET_HELP)
    per_head: bool = Field(default=False, description="Every head learns a scale of its own; else they share one.")

    @model_validator(mode="after")
    def _own_weights(self) -> Self:
        if self.per_head and (self.over == "all" or not self.weight):
            raise ValueError("`per_head` needs `over: head` and `weight: true`")
        if self.bias and (self.type != "layer_norm" or not self.weight):
            raise ValueError("`bias` needs `type: layer_norm` and `weight: true`")
        check_offset(self.offset, self.weight)
        return self

    def shapes(self, heads: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        """Shapes of what is learned: `weight`, `bias`, both or nothing."""
        if self.over == "all":
            shape: tuple[int, ...] = (heads * head_dim,)
        else:
            shape = (heads, head_dim) if self.per_head else (head_dim,)
        return {name: shape for name in ("weight", "bias") if getattr(self, name)}


class VNormOptions(Options):
    """RMS norm of each head's values; nothing is learned."""

    eps: float = Field(default=1e-6, gt=0, description="Added to the mean square.")


class TemperatureOptions(Options):
    """Factor of queries that grows with their position, by a step for every `length` tokens, or from there on."""

    scale: float = Field(gt=0, description="Factor of the logarithm of the number of steps, e.g. 0.1.")
    length: int = Field(gt=0, description="Tokens of a step; the factor is 1 within the first one.")
    shift: int = Field(default=0, ge=0, description="Position of the first token; Llama 4 counts from 1.")
    smooth: bool = Field(
        default=False,
        description="Grow with every token instead of by steps, by the logarithm of the position over `length`, where "
        "that is more than 1.",
    )


class RelativeOptions(Options):
    """Scores by the distance of the key: learned profiles, which each query of each head mixes."""

    rank: int = Field(gt=0, description="Number of profiles; a query has as many numbers, a projection of the input.")
    extent: int = Field(
        gt=0, description="Distances that have a score, from that of the query's own key on; further ones have 0."
    )

    def shapes(self, heads: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters, by the number of heads and the width of the model."""
        return {"r_proj.weight": (heads * self.rank, hidden), "profiles": (self.rank, self.extent)}


class ALiBiOptions(Options):
    """Scores that fall with the distance of the key, by a slope of each head (Press et al. 2022, arXiv:2108.12409)."""

    scale: float = Field(default=1.0, gt=0, description="Factor of the slopes; `head_dim ** -0.5` in Falcon.")


# `true` and `false` are short for a mapping. They are rewritten before validation, for a union in pydantic would put
# its own tags into the place of a fault.
def _bias(value: Any) -> Any:
    return dict.fromkeys("qkvo", value) if isinstance(value, bool) else value


def switch(value: Any) -> Any:
    """True as the mapping of all defaults, False as None."""
    return ({} if value else None) if isinstance(value, bool) else value


Bias = Annotated[BiasOptions, BeforeValidator(_bias, json_schema_input_type=bool | BiasOptions)]
QKNorm = Annotated[
    HeadNormOptions | None, BeforeValidator(switch, json_schema_input_type=bool | HeadNormOptions | None)
]
VNorm = Annotated[VNormOptions | None, BeforeValidator(switch, json_schema_input_type=bool | VNormOptions | None)]
ALiBi = Annotated[ALiBiOptions | None, BeforeValidator(switch, json_schema_input_type=bool | ALiBiOptions | None)]
