"""Options of indexers: small attentions that choose which tokens a large one looks at."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from axon_compose.registry import KV, Options, written
from axon_core.specs._flops import attention_flops, pairs, product_flops
from axon_core.specs._heads import LOG_SCALING_HELP, HeadNormOptions, QKNorm
from axon_core.specs._small import limited

__all__ = ["BlockIndexerOptions", "IndexerOptions", "block_params", "indexer_cache", "small_blocks", "token_params"]

Shapes = dict[str, tuple[int, ...]]


class IndexerOptions(Options):
    """Which tokens a query attends to: those with the best scores of a small attention (DeepSeek sparse attention)."""

    num_heads: int = Field(gt=0, description="Number of heads that score.")
    head_dim: int = Field(gt=0, description="Width of a head; all heads share one key per token, which is cached.")
    top_k: int = Field(gt=0, description="Tokens that a query attends to, at most.")
    traditional: bool = Field(
        default=False,
        description="Rotate neighbours (0,1), (2,3) … instead of the two halves; frequencies are the attention's.",
    )
    rope_last: bool = Field(
        default=False, description="Rotate the last `qk_rope_head_dim` dimensions of a head instead of the first."
    )
    norm_eps: float = Field(default=1e-6, gt=0, description="Added to the variance in the norms.")
    query_norm: bool = Field(
        default=False, description="Layer norm of what queries come out of, as keys have one (Mistral Large 4)."
    )
    log_scaling: bool = Field(default=False, description=LOG_SCALING_HELP)
    pool_size: int | None = Field(
        default=None,
        gt=1,
        description="Tokens that are chosen together, by one key that is a learned mean of theirs; those after the "
        "last full pool are always attended to (GLM-5.3). A divisor of `top_k`; every token by itself unless given.",
    )

    @model_validator(mode="after")
    def _whole_pools(self) -> Self:
        if self.pool_size is not None and self.top_k % self.pool_size:
            raise ValueError(f"`top_k` ({self.top_k}) is not a multiple of `pool_size` ({self.pool_size})")
        return self

    @property
    def chosen(self) -> int:
        """Tokens that a query attends to, at most: with pools also those of one that is not full."""
        return self.top_k + (self.pool_size or 1) - 1

    def flops(self, shapes: Shapes, tokens: int, context: int) -> int:
        """Keys of every token; queries and scores of those that see more tokens than are chosen."""
        keys = ("indexer.wk.weight", "indexer.pool_gate.weight")
        width = self.num_heads * self.head_dim
        return _flops(shapes, keys, width, self.chosen, tokens, context, self.pool_size or 1)


class BlockIndexerOptions(Options):
    """Which blocks of keys a query attends to: those with the best scores of a small attention."""

    num_heads: int = Field(
        gt=0,
        description="Number of heads; each chooses for an equal part of the attention's query heads, or with "
        "`pooling: mean` all of them together for all.",
    )
    head_dim: int = Field(gt=0, description="Width of a head; all heads share one key per token, which is cached.")
    block_size: int = Field(gt=0, description="Tokens of a block; blocks are counted from a sequence's first token.")
    top_k: int = Field(gt=0, description="Blocks that a query attends to, at most.")
    local_blocks: int = Field(
        default=1, ge=0, description="Blocks that are always among them: the query's own, and those before it."
    )
    norm: QKNorm = Field(
        default_factory=HeadNormOptions.model_construct,
        description="Norm of queries and keys before rope: a mapping, or false for none.",
    )
    pooling: Literal["max", "mean"] = Field(
        default="max",
        description="What is scored: every key, of which the best stands for its block (MiniMax-M3), or the `mean` of "
        "the keys of a block (Qwen4). With `mean` only full blocks are chosen, and the tokens after the last full one "
        "are always attended to; `local_blocks` has no meaning.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pooling == "mean" and "local_blocks" in self.model_fields_set:
            raise ValueError("`local_blocks` does not go with `pooling: mean`, which chooses full blocks alone")
        if self.pooling == "max" and self.local_blocks > self.top_k:
            raise ValueError(f"`local_blocks` ({self.local_blocks}) is more than `top_k` ({self.top_k})")
        if self.norm is not None and self.norm.when == "after_rope":
            raise ValueError("the `norm` of an indexer is before rope")
        return self

    @property
    def chosen(self) -> int:
        """Tokens that a query attends to, at most: with means also those of a block that is not full."""
        return self.top_k * self.block_size + (self.block_size - 1 if self.pooling == "mean" else 0)

    def flops(self, shapes: Shapes, tokens: int, context: int) -> int:
        """Keys of every token; queries and scores of those that see more blocks than are chosen."""
        width, pool = self.num_heads * self.head_dim, self.block_size if self.pooling == "mean" else 1
        return _flops(shapes, ("indexer.k_proj.weight",), width, self.chosen, tokens, context, pool)


def _flops(
    shapes: Shapes, keys: tuple[str, ...], width: int, chosen: int, tokens: int, context: int, pool: int = 1
) -> int:
    choosing = max(0, context - max(context - tokens, chosen))
    of_keys = {name: shape for name, shape in shapes.items() if name in keys}
    of_queries = {name: shape for name, shape in shapes.items() if name not in keys}
    seen = pairs(choosing, context) if pool == 1 else sum(n // pool for n in range(context - choosing + 1, context + 1))
    return product_flops(of_keys, tokens) + product_flops(of_queries, choosing) + attention_flops(1, width, 0, seen)


def token_params(options: IndexerOptions, hidden: int, queries: int) -> Shapes:
    """Shapes of an indexer whose queries come out of `queries` numbers, by their names within the attention."""
    heads, width = options.num_heads, options.head_dim
    found: Shapes = {
        "indexer.wq_b.weight": (heads * width, queries),
        "indexer.wk.weight": (width, hidden),
        "indexer.k_norm.weight": (width,),
        "indexer.k_norm.bias": (width,),
        "indexer.weights_proj.weight": (heads, hidden),
    }
    if options.query_norm:
        found |= {"indexer.q_norm.weight": (queries,), "indexer.q_norm.bias": (queries,)}
    if options.log_scaling:
        found |= {f"indexer.log_scaling.{name}": (heads,) for name in ("scale", "bias")}
    if options.pool_size is not None:
        found |= {"indexer.pool_gate.weight": (width, hidden), "indexer.pool_bias": (options.pool_size, width)}
    return found


def block_params(options: BlockIndexerOptions, hidden: int) -> Shapes:
    """Shapes of an indexer of blocks, by their names within the attention."""
    heads, width = options.num_heads, options.head_dim
    found: Shapes = {"indexer.q_proj.weight": (heads * width, hidden), "indexer.k_proj.weight": (width, hidden)}
    for name, count in (("q_norm", heads), ("k_norm", 1)):
        if options.norm is not None:
            found |= {f"indexer.{name}.{learned}": of for learned, of in options.norm.shapes(count, width).items()}
    return found


def indexer_cache(options: IndexerOptions | BlockIndexerOptions) -> KV:
    """One key per token, and no value but the gate of a pool."""
    pooled = isinstance(options, IndexerOptions) and options.pool_size is not None
    return KV(1, options.head_dim, options.head_dim if pooled else 0)


def small_blocks(options: BlockIndexerOptions, kv_heads: int, kept: int) -> dict[str, Any]:
    """Small sizes with the same structure, as a file writes them.

    Args:
        options: Of an indexer of blocks.
        kv_heads: Key heads of its attention.
        kept: Those of the small one.
    """
    limits = {"block_size": 4, "top_k": 3}
    if options.pooling == "mean":
        heads = min(options.num_heads, 2)
    else:
        limits["local_blocks"] = 2
        heads = kept if options.num_heads == kv_heads else 1
    return written(options) | limited(options, limits) | {"num_heads": heads, "head_dim": 16}
