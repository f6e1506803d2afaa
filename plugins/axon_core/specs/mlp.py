"""Feed-forward layers: options and record."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Array, ComponentSpec, Dims, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._learning import learned
from axon_core.specs._saved import Limit, each, in_float32, mlp_saved
from axon_core.specs._small import limited
from axon_core.specs.splits.mlp import INPUTS, OUTPUTS, mlp_split
from axon_core.specs.transfers.mlp import MLP_TRANSFERS

__all__ = [
    "ACTIVATION_HELP",
    "LIMIT_HELP",
    "SITU_HELP",
    "SPECS",
    "Activation",
    "ActivationName",
    "Limit",
    "MLPActivationName",
    "MLPOptions",
    "SituOptions",
    "bound_of",
    "check_gated",
    "mlp_params",
]

ActivationName = Literal[
    "silu", "gelu", "gelu_tanh", "gelu_quick", "relu", "relu2", "swiglu_oai", "swiglu_clipped", "situ"
]
HuggingFaceName = Literal["gelu_pytorch_tanh", "gelu_new", "gelu_fast", "quick_gelu", "swish"]

#: What `config.json` calls some of them.
_CANONICAL: Final[dict[HuggingFaceName, ActivationName]] = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "swish": "silu",
}


def _canonical(value: Any) -> Any:
    return _CANONICAL.get(value, value) if isinstance(value, str) else value  # type: ignore[call-overload]


Activation = Annotated[
    ActivationName, BeforeValidator(_canonical, json_schema_input_type=Literal[ActivationName, HuggingFaceName])
]
#: Of layers that are not experts: `xielu` has parameters of its own.
MLPActivationName = Literal[ActivationName, "xielu"]
MLPActivation = Annotated[
    MLPActivationName, BeforeValidator(_canonical, json_schema_input_type=Literal[MLPActivationName, HuggingFaceName])
]
ACTIVATION_HELP: Final = (
    "Activation: gelu is the exact one, gelu_tanh and gelu_quick its approximations by tanh and by a sigmoid; "
    "relu2 is the square of relu; swiglu_oai the bounded, shifted product of gpt-oss, swiglu_clipped that of "
    "DeepSeek-V4, which needs a `limit`, situ the bounded one of Kimi K3. "
    "The names of Hugging Face (gelu_pytorch_tanh, gelu_new, gelu_fast, quick_gelu, swish) are understood."
)
LIMIT_HELP: Final = (
    "Bound L of a gated layer: min(act(gate), L) times the second projection within -L and L. "
    "None unless given, for swiglu_oai 7. The gate of swiglu_oai and swiglu_clipped is bounded before the activation."
)
SITU_HELP: Final = "Bounds of `activation: situ`: {gate: …, up: …}; the gate's is 1, and the other none, unless given."


class SituOptions(Options):
    """Bounds of a gated layer's factors, by tanh: `A tanh(g / A) sigmoid(g)` times `B tanh(u / B)`."""

    gate: float = Field(1.0, gt=0, description="Bound A of the gate.")
    up: float | None = Field(None, gt=0, description="Bound B of the second projection; none unless given.")


class MLPOptions(Options):
    """Feed-forward layer: gated (SwiGLU, GeGLU, ...) or with two matrices."""

    intermediate_size: int = Field(gt=0, description="Width between the matrices.")
    activation: MLPActivation = Field(
        "silu", description=f"{ACTIVATION_HELP} xielu, without a gate, has two learned slopes (Apertus)."
    )
    gated: bool = Field(True, description="Multiply by a second projection; without it there are two matrices.")
    bias: bool = Field(False, description="Bias of every projection.")
    limit: float | None = Field(None, gt=0, description=LIMIT_HELP)
    situ: SituOptions | None = Field(None, description=SITU_HELP)
    gate_scale: float = Field(1.0, gt=0, description="Factor of the gate's projection, before its activation.")
    sparsity: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the gate that is set to 0: what is below this quantile of a normal distribution with its "
        "mean and deviation. None unless given.",
    )
    gain: bool = Field(False, description="Learn a factor of the output.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_gated(self.activation, self.gated, self.limit, self.situ)
        if self.gated and self.activation == "xielu":
            raise ValueError("`xielu` is the activation of a layer without a gate: it needs `gated: false`")
        if not self.gated and self.gate_scale != 1.0:
            raise ValueError("`gate_scale` scales the gate: it needs `gated: true`")
        if not self.gated and self.sparsity is not None:
            raise ValueError("`sparsity` is that of the gate: it needs `gated: true`")
        return self


def bound_of(activation: MLPActivationName, limit: float | None, situ: SituOptions | None) -> Limit:
    """What bounds a gated layer, of its options."""
    if activation != "situ":
        return limit
    return (1.0, None) if situ is None else (situ.gate, situ.up)


def check_gated(
    activation: MLPActivationName, gated: bool, limit: float | None, situ: SituOptions | None = None
) -> None:
    """Refuse what a layer without a gate does not have.

    Raises:
        ValueError: In plain words.
    """
    if not gated and activation in ("swiglu_oai", "swiglu_clipped", "situ"):
        raise ValueError(f"`{activation}` is the product with a gate: it needs `gated: true`")
    if activation == "swiglu_clipped" and limit is None:
        raise ValueError("`swiglu_clipped` is bounded: give `limit`")
    if situ is not None and activation != "situ":
        raise ValueError("`situ` has the bounds of `activation: situ`")
    if limit is not None and activation == "situ":
        raise ValueError("the bounds of `activation: situ` are those of `situ`, not `limit`")
    if not gated and limit is not None:
        raise ValueError("`limit` bounds the product with a gate: it needs `gated: true`")


def mlp_params(hidden: int, width: int, *, gated: bool = True, bias: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of `axon_core.mlp.MLP`."""
    matrices = {"up_proj": (width, hidden), "down_proj": (hidden, width)}
    if gated:
        matrices = {"gate_proj": (width, hidden), **matrices}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in matrices.items()}
    if bias:
        shapes |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
    return shapes


def _params(options: MLPOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    shapes = mlp_params(dims.hidden_size, options.intermediate_size, gated=options.gated, bias=options.bias)
    if outputs := dims.get(OUTPUTS):  # a device's rows of the last matrix, which reads what all devices have
        shapes["down_proj.weight"] = (outputs, dims[INPUTS])
        shapes |= {"down_proj.bias": (outputs,)} if options.bias else {}
    if options.activation == "xielu":
        shapes |= {"act_fn.alpha_p": (1,), "act_fn.alpha_n": (1,), "act_fn.beta": (), "act_fn.eps": ()}
    return shapes | ({"gain": (1,)} if options.gain else {})


def _saved(options: MLPOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    width, activation = options.intermediate_size, options.activation
    limit = bound_of(activation, options.limit, options.situ)
    found = mlp_saved(tokens, dims.hidden_size, width, activation, gated=options.gated, limit=limit)
    found += each(tokens, plain_output=dims.hidden_size) if options.gain else ()
    if options.sparsity is not None:
        found += each(tokens, above=width) + in_float32(tokens, centred=width, moments=4)
    return found


SPECS: Final = (
    ComponentSpec(
        name="mlp",
        module_name="mlp",
        kind="layer",
        options=MLPOptions,
        module="axon_core.mlp:MLP.from_options",
        learning=learned(("down_proj.weight",)),
        summary="Feed-forward layer: SwiGLU by default.",
        source='Shazeer 2020, "GLU Variants Improve Transformer" (arXiv:2002.05202)',
        params=_params,
        flops=lambda options, dims, tokens, context: product_flops(_params(options, dims), tokens),
        saved=_saved,
        transfers=MLP_TRANSFERS,
        split=mlp_split(_params),
        shrink=lambda options, dims: written(options) | limited(options, {"intermediate_size": 48}),
        examples=(
            {"intermediate_size": 48},
            {"intermediate_size": 48, "activation": "gelu_tanh", "bias": True},
            {"intermediate_size": 48, "activation": "relu2", "gated": False, "gain": True},
            {"intermediate_size": 48, "activation": "xielu", "gated": False},
            {"intermediate_size": 48, "activation": "swiglu_oai", "bias": True},
            {"intermediate_size": 48, "activation": "swiglu_clipped", "limit": 2.0},
            {"intermediate_size": 48, "activation": "gelu_quick", "limit": 0.5},
            {"intermediate_size": 48, "activation": "gelu_pytorch_tanh", "gate_scale": 0.5},
            {"intermediate_size": 48, "activation": "gelu_tanh", "sparsity": 0.8},
            {"intermediate_size": 48, "activation": "situ", "situ": {"gate": 2.0, "up": 3.0}},
        ),
    ),
)
