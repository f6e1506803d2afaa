"""How attention knows the order of tokens, derived from what components declare; no component is known by name here."""

from __future__ import annotations

from axon_compose.plan._plan import Plan, Use
from axon_compose.registry import KV, cache_leaves, option_names

__all__ = ["attends", "position_words", "takes_position"]


def attends(use: Use) -> bool:
    """Whether it is attention: it keeps keys and values, or keeps nothing and reads those of an earlier layer."""
    keeps = any(isinstance(leaf, KV) for leaf in cache_leaves(use.cache))
    return keeps or (use.cache is None and bool(use.source_layers))


def takes_position(use: Use) -> bool:
    """Whether it reads the position, and for more than a rotation that is off."""
    if "offset" not in use.reads:
        return False
    asks = use.spec.reads.get("offset")
    if asks is not None:
        return use.option(asks) not in (None, False)
    return "rope" not in option_names(use.spec) or any(map(use.option, ("rope", "temperature", "alibi", "relative")))


def position_words(use: Use, plan: Plan) -> str:
    """What gives a component of a layer the order of tokens; empty for one that neither attends nor takes positions.

    Returns:
        `RoPE`; `ALiBi`; `relative scores`; `positions` for another way of taking them; `learned positions` or
        `sinusoidal positions` where the embedding adds them;
        `NoPE` for attention that has none.
    """
    if use.option("rope"):
        return "RoPE"
    if use.option("alibi"):
        return "ALiBi"
    if use.option("relative"):
        return "relative scores"
    if takes_position(use) and "rope" not in option_names(use.spec):
        return "positions"
    if not attends(use):
        return ""
    if not takes_position(plan.embedding):
        return "NoPE"
    return "sinusoidal positions" if plan.embedding.option("positions") == "sinusoidal" else "learned positions"
