"""Advice on sizes that the hardware handles badly."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

from axon_compose.analysis.lint._rule import Finding, layer_uses, option_path, place_of
from axon_compose.language.document import Document
from axon_compose.machine.units import human
from axon_compose.plan import Plan, cache_nbytes, total_parameters
from axon_compose.registry import KV

__all__ = ["large_caches", "ragged_vocabulary", "unfused_heads", "unquantised_rows"]

#: Widths of a head for which MLX has fused kernels, of prompts or of single tokens
#: (mlx/backend/metal/scaled_dot_product_attention.cpp).
_FUSED: Final = (64, 72, 80, 96, 128, 192, 256, 512)
#: Numbers that share a scale when `build --quantize` runs.
_GROUP: Final = 64
#: Matrices with shorter rows are not worth quantising.
_SHORTEST: Final = 32
_SHARE: Final = 0.01
#: Matrix units work on tiles of eight rows.
_TILE: Final = 8
_CONTEXT: Final = 65536
_LARGE: Final = 8_000_000_000


def unfused_heads(document: Document, plan: Plan) -> Iterator[Finding]:
    """Attention whose head width no fused kernel supports: all scores are written to memory."""
    for use in layer_uses(plan):
        cache = use.cache
        if isinstance(cache, KV) and cache.value_dim is None and cache.head_dim not in _FUSED:
            yield Finding(
                f"`{use.name}` has heads of width {cache.head_dim}, for which MLX has no fused attention kernel",
                option_path(use, plan, "head_dim"),
                "64, 96, 128 and 256 are fast for both prefill and decode",
            )


def unquantised_rows(document: Document, plan: Plan) -> Iterator[Finding]:
    """Matrices whose row length is not a multiple of 64: `--quantize` leaves them as they are."""
    total = total_parameters(plan)
    skipped: dict[tuple[str, str], tuple[int, int]] = {}
    places = {}
    for use in plan.uses():
        for name, shape in use.params.items():
            kept = any(name.startswith(f"{module}.") for module in use.spec.unquantized)
            if (
                not name.endswith("weight")
                or kept
                or len(shape) < 2
                or shape[-1] < _SHORTEST
                or shape[-1] % _GROUP == 0
            ):
                continue
            size, _ = skipped.get((use.name, name), (0, 0))
            skipped[use.name, name] = size + prod(shape), shape[-1]
            places[use.name] = place_of(use, plan)
    for (component, name), (size, width) in skipped.items():
        if size >= _SHARE * total:
            yield Finding(
                f"rows of `{component}.{name}` have length {width}, not a multiple of {_GROUP}: "
                f"{size / total:.0%} of the parameters stay unquantised",
                places[component],
                f"the next multiple is {-(-width // _GROUP) * _GROUP}",
                key=True,
            )


def ragged_vocabulary(document: Document, plan: Plan) -> Iterator[Finding]:
    """A vocabulary that leaves the head's last tile of rows partly empty; padding costs next to nothing."""
    use = plan.unembedding
    size = use.token_rows
    if size % _TILE:
        name = "padded_vocab_size" if use.option("padded_vocab_size") else "vocab_size"
        yield Finding(
            f"`{name}` is {size:,}, not a multiple of {_TILE}",
            ("dims", "vocab_size"),
            f"pad it to {-(-size // 64) * 64:,}; unused tokens do no harm",
        )


def large_caches(document: Document, plan: Plan) -> Iterator[Finding]:
    """Multi-head KV caches (no GQA) that are large at a long context."""
    total = cache_nbytes(plan, _CONTEXT)
    for use in layer_uses(plan):
        cache, heads = use.cache, use.option("num_heads")
        if not isinstance(cache, KV) or cache.window is not None or cache.heads != heads or heads < 8 or total < _LARGE:
            continue
        yield Finding(
            f"`{use.name}` caches keys and values of all {heads} heads; caches total {human(total)} "
            f"at {_CONTEXT:,} tokens",
            option_path(use, plan, "num_kv_heads"),
            f"`num_kv_heads: {heads // 4}` keeps a quarter ({heads // 4} groups of 4 queries)"
            if heads % 4 == 0
            else "give `num_kv_heads` a divisor of `num_heads`",
        )
