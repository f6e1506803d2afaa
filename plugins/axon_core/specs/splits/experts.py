"""Parts of mixtures of experts: inside of every expert, or some of the experts on each device; routers are whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from axon_compose.registry import ONCE, Cut, Dims, Role, Segment, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven

__all__ = ["HELD", "SHARED_ONCE", "moe_split", "shared_expert_split"]

#: Sizes that a part of a mixture has in its `dims`: how many of the experts it holds, and whether the shared expert is
#: whole on every device, so that only the first one's counts.
HELD: Final = "experts_held"
SHARED_ONCE: Final = "shared_expert_once"


def moe_split(options: Any, dims: Dims, devices: int) -> list[Split] | str:
    r"""A share of the width of every expert, or else some of the experts.

    Every device chooses the same experts e with the same weights w. Where their width is cut, what an expert gives is
    :math:`f_e(x) = \sum_i f_e^i(x)`, as in an MLP, and so is :math:`\sum_e w_e f_e(x)`. Where a device holds only some
    experts, it adds those of them that a token is sent to. What is computed whole, such as what identity experts keep,
    is added by the first device; biases of outputs are there once. A norm of the experts' sum has that summed before.

    Cut inside, experts share memory and work. Given away whole, they share memory alone: which of a token's experts are
    here is known only when it runs, so every device multiplies as often as one alone, mostly to no effect.
    """
    ways = [_inside(options, dims, devices), *(_by_expert(options, dims, devices))]
    found = [way for way in ways if isinstance(way, Split)]
    return found or "; ".join(way for way in ways if isinstance(way, str))


def shared_expert_split(options: Any, dims: Dims, devices: int) -> list[Split] | str:
    """As of a mixture with a shared expert behind a gate."""
    general = moe_split(options.general(), dims, devices)
    if isinstance(general, str):
        return general
    return [replace(way, options=part(options, **_widths(way.options))) for way in general]


def _widths(options: Any) -> dict[str, int]:
    """Of routed experts and the shared one, of options as a file writes them or as they are."""
    given = options if isinstance(options, Mapping) else dict(options)
    return {name: given[name] for name in ("intermediate_size", "shared_intermediate_size")}


def _inside(options: Any, dims: Dims, devices: int) -> Split | str:
    if options.latent_norm.expert is not None:
        return "`latent_norm.expert` normalises what a whole expert gives"
    width, shared = options.intermediate_size, options.shared_size
    if fault := uneven(devices, intermediate_size=width, **_shared_name(options)):
        return fault
    roles = _expert_roles(options, Cut(1, (Segment(width, width),)), Cut(2, (Segment(width, width),)), ONCE)
    changed = {"intermediate_size": width // devices}
    if options.shared_intermediate_size:
        changed["shared_intermediate_size"] = shared // devices
    return Split(part(options, **changed), roles | _shared_roles(options) | _latent_roles(options), **_sums(options))


def _by_expert(options: Any, dims: Dims, devices: int) -> list[Split | str]:
    """With the shared expert cut, and with all of it everywhere."""
    experts, shared = options.num_experts, options.shared_size
    if fault := uneven(devices, num_experts=experts):
        return [fault]
    held = rows(experts)
    roles, sizes = _expert_roles(options, held, held, held) | _latent_roles(options), {HELD: experts // devices}
    if shared is None:
        return [Split(options, roles, dims=sizes, **_sums(options))]
    ways: list[Split | str] = [Split(options, roles, dims=sizes | {SHARED_ONCE: True}, **_sums(options))]
    if shared % devices:
        return ways
    smaller = part(options, "num_shared_experts", shared_intermediate_size=shared // devices)
    return [Split(smaller, roles | _shared_roles(options), dims=sizes, **_sums(options)), *ways]


def _shared_name(options: Any) -> dict[str, int]:
    """The option that says how wide the shared expert is."""
    if options.shared_intermediate_size:
        return {"shared_intermediate_size": options.shared_intermediate_size}
    return {}


def _expert_roles(options: Any, into: Cut, out: Cut, out_bias: Role) -> dict[str, Role]:
    """Of the matrices of all experts, (experts, outputs, inputs)."""
    first, last = (("gate_proj", "up_proj"), "down_proj") if options.gated else (("fc1",), "fc2")
    roles: dict[str, Role] = {f"switch_mlp.{name}.weight": into for name in first}
    roles[f"switch_mlp.{last}.weight"] = out
    if options.bias:
        roles |= {f"switch_mlp.{name}.bias": into for name in first} | {f"switch_mlp.{last}.bias": out_bias}
    return roles


def _shared_roles(options: Any) -> dict[str, Role]:
    """Of the shared expert by its width."""
    width = options.shared_size
    if width is None:
        return {}
    first = ("gate_proj", "up_proj") if options.gated else ("up_proj",)
    roles: dict[str, Role] = {f"shared_expert.{name}.weight": rows(width) for name in first}
    roles["shared_expert.down_proj.weight"] = columns(width)
    if options.side_bias:
        roles |= {f"shared_expert.{name}.bias": rows(width) for name in first}
        roles["shared_expert.down_proj.bias"] = ONCE
    return roles


def _latent_roles(options: Any) -> dict[str, Role]:
    return {"fc2_latent_proj.bias": ONCE} if options.latent_size and options.side_bias else {}


def _sums(options: Any) -> dict[str, Any]:
    """The sum of experts before its norm; weights are float32, and so is what they multiply."""
    if options.latent_norm.sum is None:
        return {}
    return {"inside": (Summed(options.latent_size, None if options.input_scaled else "float32"),)}
