"""How the parameters of built-in components begin, and which ones do not decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from axon_compose.registry import Constant, Dims, Learning, Normal

__all__ = ["ATTENTION", "MOE", "SHARED_MOE", "SSM", "inside", "learned", "merged"]

#: Factors of norms, which begin as ones or zeros; those of single heads have two axes.
_NORM: Final = "*norm.weight"


def learned(
    outputs: tuple[str, ...] = (),
    own: tuple[str, ...] = (),
    *,
    undecayed: tuple[str, ...] = (),
    adamw: tuple[str, ...] = (),
    stacked: tuple[str, ...] = (),
    rates: Mapping[str, float] | None = None,
    load: bool = False,
) -> Learning:
    """What most components declare: matrices from a normal distribution, biases of 0, all else as the factory makes it.

    Args:
        outputs: Matrices whose products are added to the residual stream, scaled with the depth of the model.
        own: What the factory makes as the component's paper has it; norms' weights are always its.
        undecayed: See `Learning`.
        adamw: See `Learning`.
        stacked: See `Learning`.
        rates: See `Learning`.
        load: See `Learning`.
    """
    rules: dict[str, Normal | Constant | None] = dict.fromkeys((*own, _NORM), None)
    rules |= dict.fromkeys(outputs, Normal(residual=True))
    rules |= {"*.weight": Normal(), "*.bias": Constant(0.0)}

    def initial(options: Any, dims: Dims) -> Mapping[str, Normal | Constant | None]:
        return rules

    return Learning(undecayed, adamw, stacked, rates or {}, initial, load)


def inside(prefix: str, learning: Learning) -> Learning:
    """The declaration of a part, for a component that holds it under a name."""

    def named(patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{prefix}.{pattern}" for pattern in patterns)

    def initial(options: Any, dims: Dims) -> Mapping[str, Normal | Constant | None]:
        rules = learning.initial(options, dims) if learning.initial else {}
        return {f"{prefix}.{pattern}": rule for pattern, rule in rules.items()}

    rates = {f"{prefix}.{pattern}": factor for pattern, factor in learning.rates.items()}
    return Learning(
        named(learning.undecayed), named(learning.adamw), named(learning.stacked), rates, initial, learning.load
    )


def merged(*parts: Learning) -> Learning:
    """The declarations of several parts as one."""

    def initial(options: Any, dims: Dims) -> Mapping[str, Normal | Constant | None]:
        found: dict[str, Normal | Constant | None] = {}
        for part in parts:
            found |= part.initial(options, dims) if part.initial else {}
        return found

    def joined(name: str) -> tuple[str, ...]:
        return tuple(pattern for part in parts for pattern in getattr(part, name))

    rates = {pattern: factor for part in parts for pattern, factor in part.rates.items()}
    return Learning(
        joined("undecayed"), joined("adamw"), joined("stacked"), rates, initial, any(part.load for part in parts)
    )


#: Selective scans: decays of the state (Gu and Dao 2023) do not decay themselves, steps begin as the factory has them.
SSM: Final = learned(
    ("out_proj.weight",),
    own=("conv1d.weight", "dt_proj.*"),
    undecayed=("A_log",),
    adamw=("dt_proj.weight",),
)
ATTENTION: Final = learned(("o_proj.weight",), own=("log_scaling.*",), undecayed=(_NORM,))
#: Experts are stacked matrices, and their biases stacked vectors; the router stays with AdamW.
SHARED_MOE: Final = learned(
    ("switch_mlp.down_proj.weight", "shared_expert.down_proj.weight"),
    adamw=("gate.weight",),
    stacked=("switch_mlp.*.weight",),
    load=True,
)
MOE: Final = learned(
    (
        "switch_mlp.down_proj.weight",
        "switch_mlp.fc2.weight",
        "shared_expert.down_proj.weight",
        "shared_experts.down_proj.weight",
        "shared_experts.fc2.weight",
        "fc2_latent_proj.weight",
    ),
    undecayed=("experts_of_token",),
    adamw=("gate.weight",),
    stacked=("switch_mlp.*.weight", "shared_experts.*.weight"),
    load=True,
)
