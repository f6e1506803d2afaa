"""Options of multi-head latent attention."""

import math
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from axon_compose.registry import Options
from axon_core.specs._heads import (
    GATE_HELP,
    LOG_SCALING_HELP,
    SINKS_HELP,
    TEMPERATURE_HELP,
    GateName,
    TemperatureOptions,
    switch,
)
from axon_core.specs._indexer import IndexerOptions
from axon_core.specs._rope import RopeOptions

__all__ = ["LatentAttentionOptions", "LatentRopeOptions", "LoraScaleOptions"]


class LatentRopeOptions(RopeOptions):
    """Rotary position embedding of the part of each head that has positions."""

    traditional: bool = Field(
        default=True, description="Pair neighbours (0,1), (2,3) …, as DeepSeek does, instead of the two halves."
    )
    learned: bool = Field(
        default=False,
        description="Learn a factor `exp(alpha)` of each frequency, with alphas that begin as 0 (LeRoPE). Those of "
        "another layer with `alphas_from`, so that all layers learn the same ones.",
    )


class LoraScaleOptions(Options):
    """Factors of what comes out of the latents, e.g. `=sqrt(hidden_size / kv_lora_rank)` (LongCat-Flash)."""

    q: float = Field(default=1.0, gt=0, description="Factor of the queries.")
    kv: float = Field(default=1.0, gt=0, description="Factor of the latent of keys and values, after its norm.")


Rope = Annotated[
    LatentRopeOptions | None, BeforeValidator(switch, json_schema_input_type=bool | LatentRopeOptions | None)
]


class LatentAttentionOptions(Options):
    """Causal attention whose heads share one latent vector and one rotated key per token (MLA)."""

    num_heads: int = Field(gt=0, description="Number of heads.")
    q_lora_rank: int | None = Field(
        default=None, gt=0, description="Width of the latent of queries; null for one full projection."
    )
    kv_lora_rank: int = Field(gt=0, description="Width of the latent of keys and values, which is what is cached.")
    qk_nope_head_dim: int = Field(gt=0, description="Width of the part of a head without positions.")
    qk_rope_head_dim: int = Field(
        ge=0,
        description="Width of the part with positions, whose key all heads share and which is cached too; 0 for none, "
        "with `rope: false`.",
    )
    v_head_dim: int | None = Field(
        default=None, gt=0, description="Width of a head's value; `qk_nope_head_dim` unless given."
    )
    rope: Rope = Field(
        default_factory=LatentRopeOptions.model_construct,
        description="Rotary position embedding: false for none, or a mapping. On with theta 10000 unless given.",
    )
    window_size: int | None = Field(
        default=None, gt=0, description="Tokens that a query sees, itself included; all unless given."
    )
    rope_key_norm: bool = Field(
        default=False, description="RMS norm of the rotated key, before its rotation (dots3-note)."
    )
    bias: bool = Field(default=False, description="Biases of the projections to the latents and of the output.")
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the mean square in the norms of the latents.")
    scale: float | None = Field(
        default=None,
        gt=0,
        description="Factor of the scores before softmax; `(qk_nope_head_dim + qk_rope_head_dim) ** -0.5` unless "
        "given, and with yarn and `mscale_all_dim` times `(0.1 * mscale_all_dim * log(factor) + 1) ** 2`.",
    )
    lora_scale: LoraScaleOptions = Field(
        default_factory=LoraScaleOptions.model_construct,
        description="Factors of what comes out of the latents; 1 unless given.",
    )
    indexer: IndexerOptions | None = Field(
        default=None,
        description="Attend to the tokens with the best scores of a small attention, which has a cache of its own "
        "(DeepSeek sparse attention); to all unless given.",
    )
    index_from: str | None = Field(
        default=None,
        description="Component whose choice of tokens is taken, from the nearest earlier layer that uses it, instead "
        "of one by an indexer of its own.",
    )
    kv_from: str | None = Field(
        default=None,
        description="Component whose latents and rotated keys are read, from the nearest earlier layer that uses it "
        "and makes its own; keys and values of the heads are made of them by this layer's own matrices.",
    )
    alphas_from: str | None = Field(
        default=None,
        description="Component whose learned alphas of rotary frequencies are taken, from the nearest earlier layer "
        "that uses it and has its own; needs `rope.learned`.",
    )
    temperature: TemperatureOptions | None = Field(default=None, description=TEMPERATURE_HELP)
    log_scaling: bool = Field(default=False, description=LOG_SCALING_HELP)
    sinks: bool = Field(default=False, description=SINKS_HELP)
    gate: GateName | None = Field(default=None, description=GATE_HELP)
    both_latents: bool = Field(
        default=False,
        description="Make queries, and the gate, out of the latent of queries and the same before its norm, side by "
        "side (A.X K2), instead of queries out of the normed one and the gate out of the input.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.q_lora_rank is None and self.lora_scale.q != 1.0:
            raise ValueError("`lora_scale.q` needs a `q_lora_rank`: without one, queries come out of no latent")
        if self.q_lora_rank is None and self.both_latents:
            raise ValueError("`both_latents` needs a `q_lora_rank`: without one, there is no latent of queries")
        if self.rope is not None and not self.qk_rope_head_dim:
            raise ValueError("with a `qk_rope_head_dim` of 0 nothing is rotated: write `rope: false`")
        if self.rope_key_norm and not self.qk_rope_head_dim:
            raise ValueError("with a `qk_rope_head_dim` of 0 there is no key for `rope_key_norm`")
        if self.window_size is not None and (self.indexer is not None or self.index_from is not None):
            raise ValueError("`indexer` and `index_from` choose among all tokens: they do not go with `window_size`")
        if self.alphas_from is not None and not (self.rope is not None and self.rope.learned):
            raise ValueError("`alphas_from` takes what `rope` has learned elsewhere: it needs `rope: {learned: true}`")
        if self.indexer is not None and self.rope is not None and self.indexer.head_dim < self.qk_rope_head_dim:
            raise ValueError(
                f"`indexer.head_dim` ({self.indexer.head_dim}) is less than `qk_rope_head_dim` "
                f"({self.qk_rope_head_dim}), which is rotated"
            )
        return self

    @property
    def own_indexer(self) -> IndexerOptions | None:
        """The indexer of this layer itself."""
        return None if self.index_from is not None else self.indexer

    @property
    def own_alphas(self) -> int:
        """Learned numbers of rotary frequencies that this layer itself has."""
        if self.rope is None or not self.rope.learned or self.alphas_from is not None:
            return 0
        return self.rope.rotated(self.qk_rope_head_dim) // 2

    @property
    def value_dim(self) -> int:
        """Width of a head's value."""
        return self.v_head_dim or self.qk_nope_head_dim

    @property
    def query_width(self) -> int | None:
        """Numbers that queries are made of, where they are made of latents."""
        return self.q_lora_rank and self.q_lora_rank * (1 + self.both_latents)

    @property
    def gate_dim(self) -> int:
        """Numbers of the gate for each token; 0 without one."""
        if self.gate is None:
            return 0
        return self.num_heads * (1 if self.gate == "head" else self.value_dim)

    @property
    def softmax_scale(self) -> float:
        """Factor of the scores: with DeepSeek's yarn it holds the part of the gain that rope divides out."""
        if self.scale is not None:
            return self.scale
        scale = (self.qk_nope_head_dim + self.qk_rope_head_dim) ** -0.5
        scaling = None if self.rope is None else self.rope.scaling
        if scaling is None or scaling.type != "yarn" or not scaling.mscale_all_dim:
            return scale
        return scale * (0.1 * scaling.mscale_all_dim * math.log(scaling.stretch) + 1) ** 2
