"""Options of attention, full or within a window."""

from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from axon_compose.registry import Options
from axon_core.specs._heads import (
    GATE_HELP,
    KV_HEADS_HELP,
    LOG_SCALING_HELP,
    SINKS_HELP,
    TEMPERATURE_HELP,
    ALiBi,
    Bias,
    BiasOptions,
    GateActivationName,
    GateName,
    QKNorm,
    RelativeOptions,
    TemperatureOptions,
    VNorm,
    check_groups,
)
from axon_core.specs._indexer import BlockIndexerOptions
from axon_core.specs._rope import Rope, RopeOptions

__all__ = ["AttentionOptions", "SlidingWindowAttentionOptions"]


class AttentionOptions(Options):
    """Causal softmax attention with rotary positions (RoPE) unless `rope: false`; GQA with fewer key/value heads."""

    num_heads: int = Field(gt=0, description="Number of query heads.")
    num_kv_heads: int | None = Field(default=None, gt=0, description=KV_HEADS_HELP)
    head_dim: int | None = Field(
        default=None, gt=0, description="Width of a head; `hidden_size // num_heads` unless given."
    )
    v_head_dim: int | None = Field(default=None, gt=0, description="Width of a head's value; `head_dim` unless given.")
    bias: Bias = Field(
        default=BiasOptions.model_construct(),
        description="Biases of the projections: true, false, or a mapping of q, k, v, o, g.",
    )
    rope: Rope = Field(
        default_factory=RopeOptions.model_construct,
        description="Rotary position embedding: false for none, or a mapping. On with theta 10000 unless given.",
    )
    qk_norm: QKNorm = Field(
        default=None,
        description="Norm of queries and keys: true for an RMS norm of each head before rope, or a mapping.",
    )
    k_norm_scale: Literal["keys", "queries"] = Field(
        default="keys",
        description="What the scale of the keys' norm multiplies. Scores are the same; with `queries`, a layer with "
        "`kv_from` has a scale of its own for the keys that it reads (Hunyuan). Needs `qk_norm.when: after_rope`.",
    )
    v_norm: VNorm = Field(
        default=None, description="RMS norm of each head's values, without weights: true or {eps: …}."
    )
    k_eq_v: bool = Field(
        default=False, description="Values are the projected keys, before norm and rotation: there is no `v_proj`."
    )
    clip: float | None = Field(
        default=None, gt=0, description="Bound of projected queries, keys and values; none unless given."
    )
    input_scale: float = Field(default=1.0, gt=0, description="Factor of what the layer reads.")
    key_scale: float = Field(default=1.0, gt=0, description="Factor of projected keys, before norm and rotation.")
    value_scale: float = Field(default=1.0, gt=0, description="Factor of values, before their norm.")
    window_size: int | None = Field(
        default=None, gt=0, description="Tokens that a query sees, itself included; all unless given."
    )
    chunk_size: int | None = Field(
        default=None,
        gt=0,
        description="Tokens of a chunk: a query sees those of its own chunk alone, up to itself (Llama 4).",
    )
    scale: float | None = Field(
        default=None, gt=0, description="Factor of the scores before softmax; `head_dim ** -0.5` unless given."
    )
    softcap: float | None = Field(
        default=None,
        gt=0,
        description="Bound of the scores before softmax, `softcap * tanh(scores / softcap)`. No fused kernel has it.",
    )
    temperature: TemperatureOptions | None = Field(default=None, description=TEMPERATURE_HELP)
    alibi: ALiBi = Field(
        default=None,
        description="Scores fall with the distance of the key, by a slope of each head: true, or {scale: …}. Not with "
        "`window_size`, `chunk_size`, `sinks` or `indexer`. No fused kernel has it.",
    )
    relative: RelativeOptions | None = Field(
        default=None,
        description="Scores by the distance of the key, which each query chooses: it mixes `rank` learned profiles of "
        "`extent` distances by a projection of the input (Inkling). None unless given. Not with `alibi`, `chunk_size`, "
        "`kv_from` or `indexer`. No fused kernel has it.",
    )
    sinks: bool = Field(default=False, description=SINKS_HELP)
    gate: GateName | None = Field(default=None, description=GATE_HELP)
    gate_activation: GateActivationName = Field(default="sigmoid", description="Activation of the gate.")
    output_norm: VNorm = Field(
        default=None,
        description="RMS norm of each head's output, before the gate, without weights: true or {eps: …}.",
    )
    head_gain: bool = Field(
        default=False, description="Learn a factor for each head's queries, after their norm and rotation."
    )
    log_scaling: bool = Field(default=False, description=LOG_SCALING_HELP)
    kv_from: str | None = Field(
        default=None,
        description="Component whose keys and values are read, from the nearest earlier layer that uses it.",
    )

    indexer: BlockIndexerOptions | None = Field(
        default=None,
        description="Attend to the blocks of keys with the best scores of a small attention, which has a cache of its "
        "own (MiniMax-M3, Qwen4); to all unless given.",
    )

    @field_validator("num_kv_heads")
    @classmethod
    def _grouped(cls, value: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("num_heads")
        if value and heads:
            check_groups(heads, value)
        return value

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if self.indexer is not None:
            if self.indexer.pooling == "max" and self.num_heads % self.indexer.num_heads:
                raise ValueError(
                    f"`num_heads` ({self.num_heads}) is not a multiple of `indexer.num_heads` "
                    f"({self.indexer.num_heads})"
                )
            for name in ("window_size", "chunk_size", "kv_from"):
                if getattr(self, name) is not None:
                    raise ValueError(f"`indexer` chooses among all tokens: it cannot be given with `{name}`")
        return self

    @model_validator(mode="after")
    def _movable(self) -> Self:
        norm = self.qk_norm
        if self.k_norm_scale == "queries":
            if norm is None or norm.when != "after_rope" or norm.over != "head" or not norm.weight:
                raise ValueError(
                    "`k_norm_scale: queries` needs a `qk_norm` with `when: after_rope`, `over: head` and `weight: true`"
                )
            if norm.per_head or norm.bias or self.indexer is not None:
                raise ValueError("`k_norm_scale: queries` does not go with `per_head`, `bias` or `indexer`")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.bias.g and self.gate is None:
            raise ValueError("`bias.g` is the bias of the gate: it needs `gate`")
        if self.gate_activation != "sigmoid" and self.gate is None:
            raise ValueError("`gate_activation` is that of the gate: it needs `gate`")
        if self.alibi and (self.sinks or any((self.window_size, self.chunk_size, self.indexer))):
            raise ValueError("`alibi` does not go with `window_size`, `chunk_size`, `sinks` or `indexer`")
        if self.relative and any((self.alibi, self.chunk_size, self.kv_from, self.indexer)):
            raise ValueError("`relative` does not go with `alibi`, `chunk_size`, `kv_from` or `indexer`")
        if self.chunk_size is not None and self.window_size is not None:
            raise ValueError("give `chunk_size` or `window_size`, not both")
        if self.k_eq_v and self.v_head_dim is not None:
            raise ValueError("with `k_eq_v` values are keys: `v_head_dim` is the width of values of their own")
        return self


class SlidingWindowAttentionOptions(AttentionOptions):
    """Causal attention to the last `window_size` tokens, without positions (NoPE) unless `rope: true` is given."""

    window_size: int = Field(gt=0, description="Tokens that a query sees, itself included.")
    rope: Rope = Field(default=None, description="Rotary position embedding: true, or a mapping; none unless given.")
