"""From tokens to vectors and back: options and records of the embedding and the head."""

from math import log
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from axon_compose.registry import Array, ComponentSpec, Constant, Dims, Learning, Normal, Options, written
from axon_core.specs._flops import product_flops
from axon_core.specs._heads import switch
from axon_core.specs._per_layer_options import VALUE, PerLayerOptions, per_layer_params, shrink_inputs
from axon_core.specs._saved import each, in_float32, norm_saved
from axon_core.specs._small import limited
from axon_core.specs.splits.vocabulary import embedding_split, head_split
from axon_core.specs.transfers.embedding import HEAD_TRANSFERS, TABLE_TRANSFERS

__all__ = ["SPECS", "EmbeddingNormOptions", "LMHeadOptions", "TokenEmbeddingOptions"]

Shapes = dict[str, tuple[int, ...]]

#: Parameters of the embedding of which a token takes one row.
_TABLES: Final = ("embed_tokens.weight", "embed_positions.weight", "per_layer.embed_tokens.weight")
#: Padded vocabularies of small models: more than they have tokens.
_SMALL: Final = {"padded_vocab_size": 200}


class EmbeddingNormOptions(Options):
    """Norm of the vectors of tokens."""

    type: Literal["rms_norm", "layer_norm"] = Field(default="rms_norm", description="layer_norm subtracts the mean.")
    eps: float = Field(default=1e-6, gt=0, description="Added to the mean square.")
    weight: bool = Field(default=True, description="Learn a scale for each dimension.")
    bias: bool = Field(default=False, description="layer_norm: learn a shift for each dimension.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.bias and self.type == "rms_norm":
            raise ValueError("`bias` needs `type: layer_norm`")
        return self


EmbeddingNorm = Annotated[
    EmbeddingNormOptions | None, BeforeValidator(switch, json_schema_input_type=bool | EmbeddingNormOptions | None)
]


class TokenEmbeddingOptions(Options):
    """A vector for every token of the vocabulary."""

    size: int | None = Field(
        default=None,
        gt=0,
        description="Width of the table; `hidden_size` unless given. Another width is projected to the hidden size.",
    )
    padded_vocab_size: int | None = Field(
        default=None,
        gt=0,
        description="Rows of the table, of which those after the last token are padding; `vocab_size` unless given.",
    )
    scale: float | None = Field(
        default=None, gt=0, description="Factor of the vectors, e.g. the root of the hidden size."
    )
    scale_dtype: Literal["bfloat16", "float16"] | None = Field(
        default=None,
        description="Type that the factor is rounded to, whatever the model's is; Gemma 3 has bfloat16.",
    )
    norm: EmbeddingNorm = Field(
        default=None, description="Norm after the factor: true for an RMS norm, or a mapping; none unless given."
    )
    positions: Annotated[int, Field(gt=0)] | Literal["sinusoidal"] | None = Field(
        default=None,
        description="Learn a vector for each of this many positions, which is added; later ones share the last. Or "
        '"sinusoidal": sines and cosines of the position (Vaswani et al. 2017) as in XGLM. None unless given.',
    )
    first_position: int = Field(
        default=0, ge=0, description="Which position the first token has; 2 in OPT, BioGPT and XGLM."
    )
    per_layer: PerLayerOptions | None = Field(
        default=None,
        description="A second, narrow vector of each token for every layer, for `per_layer_input` (Gemma 3n and 4).",
    )

    # Before the union is tried, for pydantic would name each of its members in the place of the fault.
    @field_validator("positions", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if value is not None and not whole and value != "sinusoidal":
            raise ValueError('`positions` is a whole number above 0, or "sinusoidal"')
        return value

    @model_validator(mode="after")
    def _within(self) -> Self:
        count = self.positions or 0
        if self.first_position and isinstance(count, int) and self.first_position >= count:
            raise ValueError("`first_position` is an index below `positions`")
        return self


class LMHeadOptions(Options):
    """A score for every token of the vocabulary."""

    tied: bool = Field(default=True, description="Use the table of the embedding; false for a matrix of its own.")
    padded_vocab_size: int | None = Field(
        default=None,
        gt=0,
        description="Rows of its own matrix, of which those after the last token are padding, without scores; "
        "`vocab_size` unless given. A tied head has those of the embedding.",
    )
    bias: bool = Field(default=False, description="Learn a shift for each token's score.")
    scale: float | None = Field(default=None, gt=0, description="Factor of the scores.")
    softcap: float | None = Field(
        default=None, gt=0, description="Bound of the scores: `softcap * tanh(scores / softcap)`."
    )
    gain: bool = Field(default=False, description="Learn a factor of all scores.")

    @model_validator(mode="after")
    def _own_rows(self) -> Self:
        if self.tied and self.padded_vocab_size is not None:
            raise ValueError("a tied head has the rows of the table: give `padded_vocab_size` to the embedding")
        return self


def _rows(padded: int | None, dims: Dims) -> int:
    """Rows of a table or matrix, padding included.

    Raises:
        ValueError: There are fewer than tokens.
    """
    if padded is not None and padded < dims.vocab_size:
        raise ValueError(f"`padded_vocab_size` ({padded}) is less than `vocab_size` ({dims.vocab_size})")
    return padded or int(dims.vocab_size)


def _scored(options: LMHeadOptions, dims: Dims) -> int:
    """Rows that a head multiplies by."""
    return _rows(dims.get("embedding_rows") if options.tied else options.padded_vocab_size, dims)


def _embedding_params(options: TokenEmbeddingOptions, dims: Dims) -> Shapes:
    width = options.size or dims.hidden_size
    shapes: Shapes = {"embed_tokens.weight": (_rows(options.padded_vocab_size, dims), width)}
    if width != dims.hidden_size:
        shapes["in_proj.weight"] = (dims.hidden_size, width)
    if isinstance(options.positions, int):
        shapes["embed_positions.weight"] = (options.positions, dims.hidden_size)
    if options.norm is not None:
        shapes |= {f"norm.{name}": (dims.hidden_size,) for name in ("weight", "bias") if getattr(options.norm, name)}
    if options.per_layer is not None:
        shapes |= {f"per_layer.{name}": shape for name, shape in per_layer_params(options.per_layer, dims).items()}
    return shapes


def _head_params(options: LMHeadOptions, dims: Dims) -> Shapes:
    shapes: Shapes = {"gain": (1,)} if options.gain else {}
    rows = _scored(options, dims)
    if not options.tied:
        shapes["lm_head.weight"] = (rows, dims.hidden_size)
        return shapes | ({"lm_head.bias": (rows,)} if options.bias else {})
    width = dims.get("embedding_size", dims.hidden_size)
    if width != dims.hidden_size:
        shapes["out_proj.weight"] = (width, dims.hidden_size)
    return shapes | ({"bias": (rows,)} if options.bias else {})


def _embedding_flops(options: TokenEmbeddingOptions, dims: Dims, tokens: int, context: int) -> int:
    """The projections; looking up a vector multiplies nothing."""
    shapes = _embedding_params(options, dims)
    return product_flops({name: shape for name, shape in shapes.items() if name not in _TABLES}, tokens)


def _embedding_touched(options: TokenEmbeddingOptions, dims: Dims, tokens: int) -> dict[str, int]:
    """A row for each token."""
    shapes = _embedding_params(options, dims)
    return {name: min(tokens, shapes[name][0]) for name in _TABLES if name in shapes}


def _head_flops(options: LMHeadOptions, dims: Dims, tokens: int, context: int) -> int:
    """Scores of every token."""
    width = dims.get("embedding_size", dims.hidden_size) if options.tied else dims.hidden_size
    matrices = {"out_proj.weight": (width, dims.hidden_size)} if width != dims.hidden_size else {}
    return product_flops({**matrices, "scores.weight": (_scored(options, dims), width)}, tokens)


def _embedding_saved(options: TokenEmbeddingOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Nothing of the table itself; the input of a projection, and of a norm."""
    width, hidden = options.size or dims.hidden_size, dims.hidden_size
    found = each(tokens, table_rows=width) if width != hidden else ()
    if options.per_layer is not None:
        inner = options.per_layer.size * options.per_layer.layers
        found += each(tokens, per_layer_input=hidden, per_layer=inner) + norm_saved(tokens, inner, name="per_layer")
    return found + (norm_saved(tokens, hidden, weight=options.norm.weight) if options.norm is not None else ())


def _head_saved(options: LMHeadOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """Its input, and the scores, out of which the gradient of the loss is made; a cap keeps them in float32 too."""
    width = dims.get("embedding_size", dims.hidden_size)
    found = each(tokens, input=dims.hidden_size, scores=dims.vocab_size)
    if options.tied and width != dims.hidden_size:
        found += each(tokens, projected=width)
    return found + (in_float32(tokens, capped=dims.vocab_size) if options.softcap is not None else ())


def _head_touched(options: LMHeadOptions, dims: Dims, tokens: int) -> dict[str, int]:
    """A tied head reads the table of the embedding."""
    return {"embedding.embed_tokens.weight": _scored(options, dims)} if options.tied else {}


def _own_score(dims: Dims) -> float:
    """The standard deviation at which a token's score of its own vector, of length one in each dimension, is ln(V) / 2.

    In a tied model whose branches add little yet, what comes in goes out: then all other tokens together are still
    far more likely than that one.
    """
    return log(dims.vocab_size) / (2 * dims.hidden_size)


def _table_std(dims: Dims) -> float:
    """Of tables: the 0.02 of GPT-2, less for wide models, whose scores would be large, and more for narrow ones."""
    return max(min(0.02, Normal().deviation((dims.hidden_size,), 1)), _own_score(dims))


def _embedding_initial(options: TokenEmbeddingOptions, dims: Dims) -> dict[str, Normal | Constant | None]:
    """Tables of vectors; one whose vectors get larger, by a factor or a norm, drowns what branches add."""
    enlarged = options.norm is not None or (options.scale or 1.0) > 1.0
    return {
        "embed_tokens.weight": Normal(_own_score(dims) if enlarged else _table_std(dims)),
        "embed_positions.weight": Normal(_table_std(dims)),
        "*.embed_tokens.weight": Normal(0.02),
        "*norm.weight": None,
        "*.weight": Normal(),
    }


def _head_initial(options: LMHeadOptions, dims: Dims) -> dict[str, Normal | Constant | None]:
    """Scores so small that all tokens are about as likely."""
    return {"lm_head.weight": Normal(_table_std(dims)), "*.weight": Normal(), "*bias": Constant(0.0)}


def _shrink_head(options: LMHeadOptions, dims: Dims) -> dict[str, Any]:
    return written(options) | limited(options, _SMALL)


def _shrink_embedding(options: TokenEmbeddingOptions, dims: Dims) -> dict[str, Any]:
    # 24 is no usual hidden size, so a factored table stays factored.
    small = written(options) | limited(options, {"size": 24, **_SMALL})
    if options.per_layer is not None:
        small["per_layer"] = shrink_inputs(options.per_layer)
    return small


SPECS: Final = (
    ComponentSpec(
        name="token_embedding",
        module_name="embed_tokens",
        kind="embedding",
        options=TokenEmbeddingOptions,
        module="axon_core.embedding:TokenEmbedding.from_options",
        learning=Learning(undecayed=("*embed_tokens.weight", "embed_positions.weight"), initial=_embedding_initial),
        summary="A table of vectors, optionally of a width of its own.",
        params=_embedding_params,
        flops=_embedding_flops,
        saved=_embedding_saved,
        transfers=TABLE_TRANSFERS,
        split=embedding_split,
        touched=_embedding_touched,
        reads={"offset": "positions"},
        writes=(VALUE, "vectors"),
        default=True,
        shrink=_shrink_embedding,
        examples=(
            {},
            {"size": 24},
            {"size": 24, "scale": 8.0, "norm": {"type": "layer_norm", "bias": True}},
            {"scale": 5.3, "scale_dtype": "bfloat16"},
            {"norm": {"weight": False}},
            {"positions": 64, "norm": {"type": "layer_norm"}},
            {"positions": 64, "first_position": 2},
            {"positions": "sinusoidal", "first_position": 2, "scale": 2.0},
            {"padded_vocab_size": 320},
        ),
    ),
    ComponentSpec(
        name="lm_head",
        module_name="lm_head",
        kind="head",
        options=LMHeadOptions,
        module="axon_core.head:LMHead.from_options",
        learning=Learning(initial=_head_initial),
        summary="Scores of the next token, tied to the embedding or with a matrix of its own.",
        source='tying: Press and Wolf 2017, "Using the Output Embedding to Improve Language Models" (arXiv:1608.05859)',
        params=_head_params,
        flops=_head_flops,
        saved=_head_saved,
        transfers=HEAD_TRANSFERS,
        split=head_split(_head_params, _scored),
        touched=_head_touched,
        default=True,
        shrink=_shrink_head,
        examples=(
            {},
            {"tied": False},
            {"bias": True, "scale": 0.5},
            {"tied": False, "bias": True, "softcap": 30.0},
            {"tied": False, "bias": True, "padded_vocab_size": 320},
        ),
    ),
)
