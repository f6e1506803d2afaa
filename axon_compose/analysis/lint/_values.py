"""Advice on values that are valid but suspicious."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from axon_compose.analysis.lint._rule import Finding, layer_uses, option_path
from axon_compose.language.document import Document
from axon_compose.plan import Plan, total_parameters
from axon_compose.registry import as_data

__all__ = ["every_expert", "mostly_vocabulary", "unusual_eps"]

#: Published models lie between 1e-8 and 1e-4.
_EPS: Final = (1e-10, 1e-3)
#: Smaller models are toys, whose vocabulary outweighs everything.
_REAL: Final = 50_000_000


def every_expert(document: Document, plan: Plan) -> Iterator[Finding]:
    """Experts that every token uses: the router selects nothing, and all parameters are active."""
    for use in layer_uses(plan):
        experts, chosen = use.option("num_experts"), use.option("top_k")
        if isinstance(experts, int) and experts == chosen and experts > 1:
            yield Finding(
                f"`{use.name}` sends every token to all {experts} experts",
                option_path(use, plan, "top_k"),
                "lower `top_k`, or use one wide dense MLP instead",
            )


def unusual_eps(document: Document, plan: Plan) -> Iterator[Finding]:
    """An eps that vanishes beside the mean square in float32, or that changes the result."""
    uses = [use for layer in plan.layers for use in layer.uses()]
    for use in [plan.embedding, *uses, *([plan.final_norm] if plan.final_norm else ()), plan.head]:
        for path, value in _eps(as_data(use.options, use.who)):
            if len(path) == 1 and use.option("num_experts") is not None:
                continue  # guards the division by the selected scores' sum, which may be zero
            if not _EPS[0] <= value <= _EPS[1]:
                size = "small" if value < _EPS[0] else "large"
                yield Finding(
                    f"`{'.'.join(path)}` of `{use.spec.name}` is unusually {size}: {value:g}",
                    option_path(use, plan, *path),
                    "1e-5 and 1e-6 are usual",
                )


def _eps(data: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _eps(value, (*above, name))
        elif (name == "eps" or str(name).endswith("_eps")) and isinstance(value, float):
            yield (*above, name), value


def mostly_vocabulary(document: Document, plan: Plan) -> Iterator[Finding]:
    """More parameters in embedding and head than in all layers."""
    ends, total = plan.embedding.size + plan.head.size, total_parameters(plan)
    if 2 * ends > total >= _REAL:
        tied = plan.head.size * 2 < plan.embedding.size
        yield Finding(
            f"embedding and head have {ends / total:.0%} of the parameters",
            ("dims", "vocab_size"),
            "use a smaller vocabulary" if tied else "tie the head to the embedding, or use a smaller vocabulary",
        )
