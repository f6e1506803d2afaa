"""Branches that are one component and at most one norm, `x + f(norm(x))`, which the component may compute at once."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import models
import pytest

import axon_compose
from axon_compose.devices import split_plan
from axon_compose.registry import ComponentSpec, Options, PluginFault, Registry
from axon_core.norms import RMSNorm

DESCRIBED: dict[str, Any] = {
    "version": 1,
    "dims": {"hidden_size": 16, "vocab_size": 97},
    "components": {
        "f": {"type": "mlp", "intermediate_size": 8},
        "g": {"type": "mlp", "intermediate_size": 12},
        "attn": {"type": "attention", "num_heads": 2},
    },
    "stack": "a",
}


def alone(*branches: Any) -> list[str | None]:
    """The component that is all of a branch, branch by branch."""
    found = axon_compose.load({**DESCRIBED, "blocks": {"a": list(branches)}}).plan().layers[0].branches
    return [None if branch.alone is None else branch.alone.use.name for branch in found]


@pytest.mark.parametrize(
    ("branch", "name"),
    [
        ("f", "f"),
        ("attn", "attn"),
        ({"use": "f", "norm": "none"}, "f"),
        ({"parallel": [{"use": "f", "norm": "pre"}], "norm": "none"}, "f"),
        ({"use": "f", "norm": "post"}, None),
        ({"use": "f", "norm": "sandwich"}, None),
        ({"use": "f", "scale": 0.5}, None),
        ({"use": "f", "skip": 0.5}, None),
        ({"parallel": ["f", "g"]}, None),
        ({"parallel": [{"use": "f", "norm": "pre"}], "norm": "pre"}, None),
        ({"parallel": [{"use": "f", "norm": "post"}], "norm": "none"}, None),
        ({"parallel": [{"use": "f", "scale": 2.0}]}, None),
    ],
    ids=str,
)
def test_branches(branch: Any, name: str | None) -> None:
    assert alone(branch) == [name]


def test_what_is_kept_for_later_and_added_then() -> None:
    kept = {"parallel": [{"use": "f", "as": "later"}, "g"]}
    assert alone(kept, {"add": "later"}) == [None, None]


def test_what_others_read_is_called() -> None:
    """Its output is not all that it gives."""
    written = 0
    for layer in axon_compose.load("shared-kv").plan().layers:
        for branch in layer.branches:
            if any(member.use.writes for member in branch.members):
                assert branch.alone is None
                written += 1
    assert written


def test_parts_on_several_devices_are_summed_before_they_are_added() -> None:
    plan = axon_compose.load({**DESCRIBED, "blocks": {"a": ["attn", "f"]}}).plan()
    assert all(branch.alone is not None for branch in plan.layers[0].branches)
    assert all(branch.alone is None for branch in split_plan(plan, 2, 0).plan.layers[0].branches)


# -- Components of others ---------------------------------------------------------------------------------------------


class Empty(Options):
    """None."""


class Doubling(nn.Module):
    """Twice its input, in steps."""

    def __init__(self, options: Any, dims: Any) -> None:
        super().__init__()
        self.weight = mx.ones((dims.hidden_size,))

    def __call__(self, x: mx.array) -> mx.array:
        return 2 * self.weight * x


class Offering(Doubling):
    """The same at once, or what a test has it give."""

    gives: Any = staticmethod(lambda norm, x: x + 2 * (x if norm is None else norm(x)))

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x)

    def residual(self, norm: nn.Module | None, x: mx.array) -> Any:
        return type(self).gives(norm, x)


class Replaced(Offering):
    """Its output alone is replaced: that of its base is not."""

    def __call__(self, x: mx.array) -> mx.array:
        return 5 * x


class Named(Doubling):
    """Calls a layer of its own so, as layers of residual networks are called."""

    def __init__(self, options: Any, dims: Any) -> None:
        super().__init__(options, dims)
        self.residual = nn.Identity()


class Flagged(Doubling):
    """Calls an option so."""

    residual = True


def model_of(module: type, norm: str = "pre") -> Any:
    spec = ComponentSpec(
        name="own",
        kind="layer",
        options=Empty,
        module=f"{__name__}:{module.__name__}",
        summary="For tests.",
        params=lambda options, dims: {"weight": (dims.hidden_size,)},
    )
    data = {
        **DESCRIBED,
        "components": {"own": {"type": "acme/own"}},
        "blocks": {"a": [{"use": "own", "norm": norm}]},
        "final_norm": "none",
    }
    return axon_compose.load(data, registry=Registry.with_plugins({"acme": [spec]})).build()


def out_of(model: Any) -> tuple[mx.array, mx.array]:
    """What goes into the only layer, and what comes out of it."""
    tokens = models.tokens(1, 3)
    return model["embedding"](tokens), model.hidden(tokens)


@pytest.mark.parametrize("norm", ["pre", "none"])
@pytest.mark.parametrize(
    ("module", "factor"), [(Doubling, 2), (Offering, 2), (Replaced, 5), (Named, 2), (Flagged, 2)], ids=str
)
def test_components(module: type, factor: int, norm: str) -> None:
    """Only a `residual` that goes with how the component is called is asked."""
    x, y = out_of(model_of(module, norm))
    h = RMSNorm(16)(x) if norm == "pre" else x
    assert mx.allclose(y, x + factor * h, rtol=1e-4, atol=1e-5)


def test_what_is_offered_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(Offering)
    monkeypatch.setattr(Offering, "gives", staticmethod(lambda norm, x: 7 * x))
    x, y = out_of(model)
    assert mx.array_equal(y, 7 * x)
    monkeypatch.setattr(Offering, "gives", staticmethod(lambda norm, x: None))
    x, y = out_of(model)
    assert mx.allclose(y, x + 2 * RMSNorm(16)(x), rtol=1e-4, atol=1e-5)


def divided(norm: Any, x: mx.array) -> mx.array:
    raise ZeroDivisionError("divided by nothing")


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (divided, "`acme/own`.* raises ZeroDivisionError: divided by nothing"),
        (lambda norm, x: x[:, :1], "`acme/own`.* gives an array .*, not an array"),
        (lambda norm, x: x[..., :-1], "`acme/own`.* gives an array .*15.*, not an array"),
        (lambda norm, x: "x", "`acme/own`.* gives a `str`, not an array"),
    ],
    ids=["raises", "tokens", "width", "text"],
)
def test_what_is_offered_and_wrong_is_reported_as_calls_are(
    gives: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(Offering)
    monkeypatch.setattr(Offering, "gives", staticmethod(gives))
    with pytest.raises(PluginFault, match=told) as offered:
        model(models.tokens(1, 3))
    monkeypatch.setattr(Doubling, "__call__", lambda self, x: gives(None, x))
    with pytest.raises(PluginFault) as called:
        model_of(Doubling)(models.tokens(1, 3))
    assert str(offered.value) == str(called.value)
