"""A plan as plain data: what `show --stage plan` prints and `build.json` keeps."""

from __future__ import annotations

from typing import Any

from axon_compose.plan._plan import Branch, Layer, Member, Plan, Use
from axon_compose.plan._totals import active_parameters, total_parameters
from axon_compose.registry import KV, CacheSpec, Composite, State

__all__ = ["cache_to_dict", "plan_to_dict"]


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-ready data, every layer written out."""
    return {
        "name": plan.name,
        "parameters": total_parameters(plan),
        "active_parameters": active_parameters(plan),
        "dims": dict(plan.dims),
        "plugins": dict(plan.plugins),
        "embedding": _use(plan.embedding),
        **({"residual": _use(plan.residual)} if plan.residual else {}),
        "layers": [_layer(layer) for layer in plan.layers],
        "final_norm": _use(plan.final_norm) if plan.final_norm else None,
        "head": _use(plan.head),
        "slots": [cache_to_dict(slot) for slot in plan.slots],
        "masks": [
            {"kind": g.kind, "kept": g.kept, "window": g.window, "form": g.form, "slot": list(g.slot)}
            for g in plan.masks
        ],
        "offset": list(plan.offset) if plan.offset else None,
    }


def cache_to_dict(cache: CacheSpec | None) -> dict[str, Any] | None:
    """A cache spec as plain data, named after mlx-lm's class."""
    match cache:
        case KV():
            kind = "KVCache" if cache.window is None else "RotatingKVCache"
            data = {"class": kind, "heads": cache.heads, "head_dim": cache.head_dim}
            if cache.value_dim is not None:
                data["value_dim"] = cache.value_dim
            return data if cache.window is None else {**data, "window": cache.window}
        case State():
            arrays = [{"name": a.name, "shape": list(a.shape), "dtype": a.dtype or "activations"} for a in cache.arrays]
            return {"class": "ArraysCache", "arrays": arrays}
        case Composite():
            return {"class": "CacheList", "children": [cache_to_dict(child) for child in cache.children]}
    return None


def _layer(layer: Layer) -> dict[str, Any]:
    data: dict[str, Any] = {"index": layer.index, "block": layer.block}
    if layer.owner is not None:
        data["weights_of"] = layer.owner
    data["slot"] = layer.slot
    data["branches"] = [_branch(branch) for branch in layer.branches]
    return data


def _branch(branch: Branch) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if branch.connection:
        data["connection"] = _use(branch.connection)
    if branch.add:
        data["add"] = branch.add
    if branch.pre:
        data["pre_norm"] = _use(branch.pre)
    if branch.members:
        data["members"] = [_member(member) for member in branch.members]
    if branch.post:
        data["post_norm"] = _use(branch.post)
    if branch.scale != 1.0:
        data["scale"] = branch.scale
    if branch.skip != 1.0:
        data["skip"] = branch.skip
    if not branch.residual:
        data["residual"] = False
    if branch.closes:
        data["closes"] = True
    return data


def _member(member: Member) -> dict[str, Any]:
    data = _use(member.use)
    if member.pre:
        data["pre_norm"] = _use(member.pre)
    if member.post:
        data["post_norm"] = _use(member.post)
    if member.scale != 1.0:
        data["scale"] = member.scale
    if member.keep:
        data["as"] = member.keep
    return data


def _use(use: Use) -> dict[str, Any]:
    data: dict[str, Any] = {"name": use.name, "type": use.type, "path": use.path, "options": dict(use.written)}
    data["parameters"] = {name: list(shape) for name, shape in use.params.items()}
    if use.cache is not None:
        data["cache"] = cache_to_dict(use.cache)
    if use.slot is not None:
        data["slot"] = list(use.slot)
    if use.masks:
        data["masks"] = list(use.masks)
    if use.reads:
        data["reads"] = dict(use.reads)
    if use.writes:
        data["writes"] = list(use.writes)
    return data
