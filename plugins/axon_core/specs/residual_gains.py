"""One residual stream with learned factors: options and records."""

from typing import Any, Final

from pydantic import Field

from axon_compose.registry import Array, ComponentSpec, Dims, Options
from axon_core.specs._saved import each, in_float32

__all__ = ["SPECS", "EmbeddingSkipOptions", "ResidualGatesOptions"]


class EmbeddingSkipOptions(Options):
    """Each branch has a learned factor, and each layer adds the embedding by another one."""


class ResidualGatesOptions(Options):
    """Each branch has a learned share of each dimension, and the stream what complements it; it is kept in float32."""

    temperature: float = Field(0.3, gt=0, description="What the gate is divided by, before its sigmoid.")
    eps: float = Field(1e-3, gt=0, description="Lower bound of the square of the stream's factor.")


def _nothing(*_: Any) -> int:
    """Elementwise."""
    return 0


def _gated_saved(options: ResidualGatesOptions, dims: Dims, tokens: int, dtype: str) -> tuple[Array, ...]:
    return in_float32(tokens, stream=dims.hidden_size, output=dims.hidden_size)


_MODULE: Final = "axon_core.residual_gains"

SPECS: Final = (
    ComponentSpec(
        name="embedding_skip",
        kind="residual",
        options=EmbeddingSkipOptions,
        module=f"{_MODULE}:EmbeddingSkip.from_options",
        summary="Branches with a learned factor, and the embedding added after every layer by another (Talkie).",
        source="mlx-lm 2026, `talkie`",
        params=lambda options, dims: {},
        flops=_nothing,
        saved=lambda options, dims, tokens, dtype: each(tokens, embedding=dims.hidden_size),
        connections=(
            ComponentSpec(
                name="gain",
                kind="connection",
                options=EmbeddingSkipOptions,
                module=f"{_MODULE}:Gain.from_options",
                summary="A branch is added by a learned factor.",
                params=lambda options, dims: {"gain": (1,)},
                flops=_nothing,
                saved=lambda options, dims, tokens, dtype: each(tokens, output=dims.hidden_size),
            ),
            ComponentSpec(
                name="skip",
                kind="connection",
                options=EmbeddingSkipOptions,
                module=f"{_MODULE}:SkipGain.from_options",
                summary="The same for the last branch of a layer, and the embedding is added by a factor of its own.",
                params=lambda options, dims: {"gain": (1,), "skip": (1,)},
                flops=_nothing,
                saved=lambda options, dims, tokens, dtype: each(tokens, output=dims.hidden_size),
            ),
        ),
        examples=({},),
    ),
    ComponentSpec(
        name="residual_gates",
        kind="residual",
        options=ResidualGatesOptions,
        module=f"{_MODULE}:ResidualGates.from_options",
        summary="Learned shares of each branch and of the stream, for every dimension (Muse Spark).",
        source="Meta 2026, Muse Spark",
        params=lambda options, dims: {},
        flops=_nothing,
        saved=lambda options, dims, tokens, dtype: (),
        connections=(
            ComponentSpec(
                name="gate",
                kind="connection",
                options=ResidualGatesOptions,
                module=f"{_MODULE}:ResidualGate.from_options",
                summary="Shares of the stream and of a branch.",
                params=lambda options, dims: {"gate": (dims.hidden_size,)},
                flops=_nothing,
                saved=_gated_saved,
                float32=("gate",),
            ),
        ),
        examples=({}, {"temperature": 1.0, "eps": 1e-2}),
    ),
)
