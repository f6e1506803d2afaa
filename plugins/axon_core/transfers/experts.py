r"""Experts out of a dense layer, out of other experts, and back.

A mixture gives :math:`\sum_e w_e\, E_e(x)` over the experts that a token is sent to.

* Copies (Komatsuzaki et al. 2022, "Sparse Upcycling", arXiv:2212.05055): with :math:`E_e = F` that is :math:`(\sum_e
  w_e) F(x)`, so where the weights are made to sum to one it is F whatever the router says, which begins as for
  training. Where they are not (softmax over all, sigmoid), the router begins at zero, the sum S is known, and
  `down_proj` is divided by it. Noise, if asked for, comes after.
* Parts (He et al. 2024, arXiv:2410.07524, "virtual groups"): F cut into G equal parts of its inner channels, :math:`F
  = \sum_g F_g`; expert e is :math:`(G / S) F_{e \bmod G}`, and the parts of one copy have the same row in the router.
  Then a token's best :math:`T G` experts are all parts of its best T copies, with equal weights inside of each, and
  the sum is F for every router. With a `top_k` that G does not divide, a token gets a part of F, scaled so that the
  mean over all choices is F.
* Fewer experts: the most used ones (Lu et al. 2024, arXiv:2402.14800), or means of neighbours; router rows likewise.
* More experts: each r times, and `top_k` r times as large. Softmax weights are then shared among the copies; sigmoids
  are not, and `down_proj` is divided by r unless they are made to sum to one.
* Dense: all experts side by side, with weights S / E each, or their mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from axon_compose.registry import Case
from axon_core.specs._moe_options import MoEOptions
from axon_core.specs.moe import moe_params
from axon_core.specs.transfers._routing import (
    PER_EXPERT,
    Shards,
    added_by_experts,
    expert_names,
    free_router,
    general,
    neutral_router,
    shards,
    weight_sum,
)
from axon_core.transfers._heads import Array, drawn, spread

__all__ = ["from_dense", "merged", "pruned", "repeated", "shared", "to_dense"]


def from_dense(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Copies of a layer, or of equal parts of it."""
    options = general(case.options)
    cut = shards(options, case.source_options.intermediate_size)
    assert isinstance(cut, Shards), cut
    total = np.float32(weight_sum(options))
    made = {}
    for name, source in expert_names(options).items():
        array = arrays[source]
        if source.startswith("gate_proj"):
            array = array * np.float32(case.source_options.gate_scale)
        if source == "down_proj.bias":
            parts = np.broadcast_to(array / total, (cut.parts, *array.shape))
        elif source == "down_proj.weight":
            parts = np.stack(np.split(array * (np.float32(cut.parts) / total), cut.parts, axis=1))
        else:
            parts = np.stack(np.split(array, cut.parts))
        # A view where the experts are copies of the whole layer, which may be large.
        copies = np.broadcast_to(parts, (cut.copies, *parts.shape))
        made[name] = copies[:, 0] if cut.parts == 1 else copies.reshape(-1, *parts.shape[1:])
    return made | _router(options, case.dims.hidden_size, cut, rng)


def _router(options: MoEOptions, hidden: int, cut: Shards, rng: np.random.Generator) -> dict[str, Array]:
    made = _neutral(options)
    if not free_router(options):
        made["gate.weight"] = np.zeros((options.num_experts, hidden), np.float32)
    elif cut.parts > 1:
        made["gate.weight"] = np.repeat(drawn(rng, cut.copies, hidden), cut.parts, axis=0)
    return made


def _neutral(options: MoEOptions) -> dict[str, Array]:
    """What a router has besides its matrix."""
    sizes, values = {"gain": 1}, {"per_expert_scale": 1.0, "gain": 1.0}
    return {
        name: np.full(sizes.get(name, options.num_outputs), values.get(name, 0.0), np.float32)
        for name in neutral_router(options)
    }


def shared(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """The layer as the shared expert, beside experts that add nothing yet."""
    options = general(case.options)
    shapes = moe_params(options, case.dims.hidden_size, case.dims.vocab_size)
    silent = (f"{added_by_experts(options)}.", "shared_expert_gate.")
    made = {name: np.zeros(shape, np.float32) for name, shape in shapes.items() if name.startswith(silent)}
    for name, array in arrays.items():
        factor = case.source_options.gate_scale if name.startswith("gate_proj") else 1.0
        # A sigmoid of zero, or one of two equal shares, is a half.
        factor *= 2.0 if options.shared_gate and name.startswith("down_proj") else 1.0
        made[f"shared_expert.{name}"] = array * np.float32(factor)
    return made


def pruned(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """The experts that were chosen most."""
    assert case.measured is not None
    used = -np.asarray(case.measured["usage"])
    kept = np.sort(np.argsort(used, kind="stable")[: general(case.options).num_experts])
    return {name: array[kept] if by_expert else array for name, array, by_expert in _taken(case, arrays)}


def merged(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Means of neighbouring experts, or as many as there are."""
    options, taken = general(case.options), _taken(case, arrays)
    experts = options.num_experts
    if experts == general(case.source_options).num_experts:
        return _neutral(options) | {name: array for name, array, _ in taken}
    return {name: spread(array, experts) if by_expert else array for name, array, by_expert in taken}


def repeated(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Each expert several times."""
    new, old = general(case.options), general(case.source_options)
    made = {name: spread(array, new.num_experts) if by else array for name, array, by in _taken(case, arrays)}
    if new.score in ("sigmoid", "sqrt_softplus") and not new.norm_topk:
        for name, dense in expert_names(new).items():
            if dense.startswith("down_proj"):
                made[name] = made[name] * np.float32(old.num_experts / new.num_experts)
    return made


def to_dense(case: Case, arrays: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """All experts side by side, or their mean."""
    options, old = case.options, general(case.source_options)
    beside = options.intermediate_size == old.num_experts * old.intermediate_size + (old.shared_size or 0)
    total = np.float32(weight_sum(old))
    scales = arrays.get("per_expert_scale", np.ones(old.num_experts, np.float32))
    made = {}
    for name, source in expert_names(old).items():
        array = arrays[name]
        if source.startswith("down_proj"):
            array = array * total * scales.reshape(-1, *[1] * (array.ndim - 1))
        array = _side_by_side(array, source) if beside else array.mean(axis=0, dtype=np.float64).astype(np.float32)
        if f"shared_expert.{source}" in arrays:
            array = _joined(array, arrays[f"shared_expert.{source}"], source)
        if source.startswith("gate_proj"):
            array = array / np.float32(options.gate_scale)
        made[source] = array
    return made


def _side_by_side(array: Array, name: str) -> Array:
    """(experts, …) as one layer's; what is added for each expert is the mean."""
    if name == "down_proj.bias":
        return array.mean(axis=0)
    if name == "down_proj.weight":
        return np.concatenate(list(array / np.float32(len(array))), axis=1)
    return array.reshape(-1, *array.shape[2:])


def _joined(array: Array, shared_array: Array, name: str) -> Array:
    if name == "down_proj.bias":
        return array + shared_array
    return np.concatenate([array, shared_array], axis=1 if name == "down_proj.weight" else 0)


def _taken(case: Case, arrays: Mapping[str, Array]) -> list[tuple[str, Array, bool]]:
    """Name, array, and whether it has a row for each expert, of what both mixtures have."""
    names = moe_params(general(case.options), case.dims.hidden_size)
    return [(name, arrays[name], name.startswith(PER_EXPERT)) for name in names if name in arrays]
