"""How tokens are routed to experts, and how a dense layer is cut into some, out of options."""

from __future__ import annotations

from math import log, sqrt
from typing import Any, Final

from axon_compose.record import record
from axon_compose.registry import Piece

__all__ = [
    "MOE",
    "PER_EXPERT",
    "Shards",
    "added_by_experts",
    "chosen_together",
    "expert_names",
    "free_router",
    "general",
    "neutral_router",
    "normalised",
    "shards",
    "weight_sum",
]

MOE: Final = ("core/moe", "core/shared_expert_moe")
#: Parameters of a mixture with a row for each expert.
PER_EXPERT: Final = ("switch_mlp.", "gate.", "per_expert_scale", "correction_bias")
#: What is added to a sum of weights and is lost in its rounding.
_NOTHING: Final = 1e-9


@record
class Shards:
    """How a dense layer is cut: each expert is one of `parts` equal cuts of it, and there are `copies` of each.

    Attributes:
        parts: Cuts of the inner width; 1 where each expert is the whole layer.
        copies: Experts for each cut.
    """

    parts: int
    copies: int


def general(options: Any) -> Any:
    """The options of `moe`, out of those of either type."""
    return options.general() if hasattr(options, "general") else options


def normalised(options: Any) -> bool:
    """Whether the weights of the chosen experts have the same sum whatever the router says."""
    return (options.norm_topk or options.score == "topk_softmax") and options.norm_eps <= _NOTHING


def weight_sum(options: Any) -> float:
    """The sum of the chosen experts' weights, where the router says the same of all of them."""
    experts, chosen = options.num_outputs, options.top_k
    if normalised(options):
        total = 1.0
    elif options.score == "sparsemixer":
        total = sum(1 / (experts - taken) for taken in range(chosen))
    else:
        each = {"softmax": 1 / experts, "topk_softmax": 1 / chosen, "sigmoid": 0.5, "sqrt_softplus": sqrt(log(2))}
        total = chosen * each[options.score]
        total = total / (total + options.norm_eps) if options.norm_topk else total
    return total * options.routed_scaling_factor


def shards(options: Any, width: int) -> Shards | str:
    """How a dense layer of this inner width is cut into experts, or why it cannot be."""
    parts, rest = divmod(width, options.intermediate_size)
    if rest or not parts:
        return f"experts of {options.intermediate_size} are no equal parts of an `intermediate_size` of {width}"
    copies, rest = divmod(options.num_experts, parts)
    if rest or not copies:
        return f"{options.num_experts} experts are no whole number of copies of the {parts} parts of the layer"
    return Shards(parts, copies)


def expert_names(options: Any) -> dict[str, str]:
    """Parameters of the routed experts, and the same of a dense layer."""
    inner, outer = ("up_proj", "down_proj") if options.gated else ("fc1", "fc2")
    names = {f"switch_mlp.{inner}": "up_proj", f"switch_mlp.{outer}": "down_proj"}
    if options.gated:
        names = {"switch_mlp.gate_proj": "gate_proj", **names}
    kinds = ("weight", "bias") if options.bias else ("weight",)
    return {f"{new}.{kind}": f"{old}.{kind}" for new, old in names.items() for kind in kinds}


def added_by_experts(options: Any) -> str:
    """The last projection of the routed experts, whose output is added to the stream."""
    if options.latent_size:
        return "fc2_latent_proj"
    return "switch_mlp.down_proj" if options.gated else "switch_mlp.fc2"


def free_router(options: Any) -> bool:
    """Whether experts that are all the same may be chosen by any router."""
    return normalised(options) and not options.hashed


def chosen_together(options: Any, cut: Shards) -> bool:
    """Whether every part of the layer is chosen as often as any other, with the same weights."""
    if cut.parts == 1:
        return True
    in_groups = options.top_k_groups < options.num_groups
    size = options.num_experts // options.num_groups if in_groups else options.num_experts
    return options.top_k % cut.parts == 0 and size % cut.parts == 0 and options.score != "sparsemixer"


def neutral_router(options: Any) -> dict[str, Piece]:
    """What the router has besides its matrix, at values that change nothing."""
    found = {}
    if options.router_bias:
        found["gate.bias"] = Piece((), "zero")
    if options.correction_bias:
        found["correction_bias"] = Piece((), "zero")
    if options.per_expert_scale:
        found["per_expert_scale"] = Piece((), "one")
    if options.gain:
        found["gain"] = Piece((), "one")
    return found
