"""Parts of mixtures of experts: inside of every expert, or some of the experts on each device; routers are whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from axon_compose.record import record
from axon_compose.registry import ONCE, Cut, Dims, Role, Segment, Split, Summed, columns, rows
from axon_core.specs.splits._even import part, uneven

__all__ = ["HELD", "SHARED_ONCE", "moe_split", "shared_expert_split", "width_roles"]

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
    ways = [_inside(options, devices), _by_expert(options, devices)]
    sums, beside = _sums(options), _latent_roles(options)
    # What is scored stays as many experts; else they are one whose width the part says.
    left_out = () if options.scored_shared else ("num_shared_experts",)
    found = [
        Split(
            part(options, *left_out, **way.options, **shared.options),
            {**way.roles, **shared.roles, **beside},
            dims={**way.dims, **shared.dims},
            inside=sums,
        )
        for way in ways
        if isinstance(way, _Some)
        for shared in _shared(options, devices)
    ]
    return found or "; ".join(way for way in ways if isinstance(way, str))


def shared_expert_split(options: Any, dims: Dims, devices: int) -> list[Split] | str:
    """As of a mixture with a shared expert behind a gate."""
    general = moe_split(options.general(), dims, devices)
    if isinstance(general, str):
        return general
    names = ("intermediate_size", "shared_intermediate_size")
    return [replace(way, options=part(options, **{name: way.options[name] for name in names})) for way in general]


@record
class _Some:
    """What a split says of some of the experts: options and sizes that are others for a part, and roles."""

    roles: Mapping[str, Role]
    options: Mapping[str, int]
    dims: Mapping[str, Any]


def _inside(options: Any, devices: int) -> _Some | str:
    width = options.intermediate_size
    if options.latent_norm.expert is not None:
        return "`latent_norm.expert` normalises what a whole expert gives"
    if fault := uneven(devices, intermediate_size=width):
        return fault
    return _Some(_inner_roles(options), {"intermediate_size": width // devices}, {})


def _by_expert(options: Any, devices: int) -> _Some | str:
    if fault := uneven(devices, num_experts=options.num_experts):
        return fault
    held = rows(options.num_experts)
    return _Some(_expert_roles(options, held, held, held), {}, {HELD: options.num_experts // devices})


def _shared(options: Any, devices: int) -> list[_Some]:
    """A share of the shared expert's width, or of each one's, or all of it on every device."""
    width = options.scored_size if options.scored_shared else options.shared_size
    if width is None:
        return [_Some({}, {}, {})]
    once = _Some({}, {"shared_intermediate_size": width}, {SHARED_ONCE: True})
    if width % devices:
        return [once]
    return [_Some(_shared_roles(options), {"shared_intermediate_size": width // devices}, {}), once]


def width_roles(options: Any) -> dict[str, Role]:
    """Of routed and shared experts, each by its width."""
    return _inner_roles(options) | (_shared_roles(options) if options.shared_size else {})


def _inner_roles(options: Any) -> dict[str, Role]:
    inner = (Segment(options.intermediate_size, options.intermediate_size),)
    return _expert_roles(options, Cut(1, inner), Cut(2, inner), ONCE)


def _expert_roles(options: Any, into: Cut, out: Cut, out_bias: Role) -> dict[str, Role]:
    """Of the matrices of all routed experts, (experts, outputs, inputs)."""
    return _stacked_roles("switch_mlp", options.gated, options.bias, into, out, out_bias)


def _stacked_roles(name: str, gated: bool, bias: bool, into: Cut, out: Cut, out_bias: Role) -> dict[str, Role]:
    """Of matrices of several experts, (experts, outputs, inputs), and of their biases."""
    first, last = (("gate_proj", "up_proj"), "down_proj") if gated else (("fc1",), "fc2")
    roles: dict[str, Role] = {f"{name}.{layer}.weight": into for layer in first}
    roles[f"{name}.{last}.weight"] = out
    if bias:
        roles |= {f"{name}.{layer}.bias": into for layer in first} | {f"{name}.{last}.bias": out_bias}
    return roles


def _shared_roles(options: Any) -> dict[str, Role]:
    """Of the shared expert by its width, or of those that the router scores."""
    if options.scored_shared:
        inner = (Segment(options.scored_size, options.scored_size),)
        return _stacked_roles("shared_experts", options.gated, options.side_bias, Cut(1, inner), Cut(2, inner), ONCE)
    width = options.shared_size
    first = ("gate_proj", "up_proj") if options.gated else ("up_proj",)
    roles: dict[str, Role] = {f"shared_expert.{name}.weight": rows(width) for name in first}
    roles["shared_expert.down_proj.weight"] = columns(width)
    if options.side_bias:
        roles |= {f"shared_expert.{name}.bias": rows(width) for name in first}
        roles["shared_expert.down_proj.bias"] = ONCE
    return roles


def _latent_roles(options: Any) -> dict[str, Role]:
    return {"fc2_latent_proj.bias": ONCE} if options.latent_size and options.side_bias else {}


def _sums(options: Any) -> tuple[Summed, ...]:
    """The sum of experts before its norm; weights are float32, and so is what they multiply."""
    if options.latent_norm.sum is None:
        return ()
    return (Summed(options.latent_size, None if options.input_scaled else "float32"),)
