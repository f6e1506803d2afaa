"""Attention over depth: options and records."""

from typing import Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Constant, Dims, Learning, Options
from axon_core.specs._saved import in_float32

__all__ = ["SPECS", "AttentionResidualsOptions"]


class AttentionResidualsOptions(Options):
    """Branches read a learned mixture of what earlier blocks of layers gave, instead of their sum."""

    norm_eps: float = Field(1e-5, gt=0, description="Added to the mean square in the norm of what is compared.")
    mean_blocks: int = Field(
        0,
        ge=0,
        description="Finished blocks that a mixture reads, as the mean over the stack. Only estimates of memory and "
        "operations use it: how many there are, the stack decides.",
    )


def _params(options: AttentionResidualsOptions, dims: Dims) -> dict[str, tuple[int, ...]]:
    return {"norm.weight": (dims.hidden_size,), "proj.weight": (1, dims.hidden_size)}


def _flops(options: AttentionResidualsOptions, dims: Dims, tokens: int, context: int) -> int:
    """A score and a share of each block."""
    return 4 * tokens * _sources(options) * dims.hidden_size


def _saved(options: AttentionResidualsOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    """What is compared, before and after its norm, and the shares."""
    wide = _sources(options) * dims.hidden_size
    return in_float32(tokens, sources=wide, unit=wide, normed=wide, shares=2 * _sources(options))


def _sources(options: AttentionResidualsOptions) -> int:
    """What a mixture is made of: ended blocks and the current one; nothing where none has ended."""
    return options.mean_blocks + 1 if options.mean_blocks else 0


#: The query of a mixture is a vector; it begins as zeros, so that all sources have the same share, as in the paper.
_QUERY: Final = Learning(undecayed=("proj.weight",), initial=lambda options, dims: {"proj.weight": Constant(0.0)})


def _connection(name: str, factory: str, summary: str) -> ComponentSpec:
    return ComponentSpec(
        name=name,
        kind="connection",
        options=AttentionResidualsOptions,
        module=f"axon_core.attention_residuals:{factory}.from_options",
        learning=_QUERY,
        summary=summary,
        params=_params,
        flops=_flops,
        saved=_saved,
        unquantized=("proj",),
    )


SPECS: Final = (
    ComponentSpec(
        name="attention_residuals",
        kind="residual",
        options=AttentionResidualsOptions,
        module="axon_core.attention_residuals:AttentionResiduals.from_options",
        learning=_QUERY,
        summary="Branches read a softmax mixture of what earlier blocks of layers gave (Kimi K3).",
        source="Moonshot AI 2026, Kimi K3, as mlx-lm's `kimi_k3` has it",
        params=_params,
        flops=_flops,
        saved=_saved,
        unquantized=("proj",),
        connections=(
            _connection("inside", "AttentionResidual", "A branch reads the mixture and is added to its block's sum."),
            _connection("start", "BlockStart", "The same for the first branch of a block, which ends the one before."),
            _connection("first", "FirstStart", "The same for the first branch of all: it reads the embedding."),
        ),
        examples=({}, {"norm_eps": 1e-3}, {"norm_eps": 1e-6}, {"norm_eps": 1e-4}, {"norm_eps": 1e-2}),
    ),
)
