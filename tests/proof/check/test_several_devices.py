"""The truth of several devices: it holds where splits are right, and says where they are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import axon_compose
from axon_compose.proof.check import Truth, check_plan
from axon_compose.proof.check._devices import caches_on_devices, devices
from axon_compose.proof.check._subject import Subject
from axon_compose.registry import Dims, Registry, Split

MODEL: dict[str, Any] = {
    "version": 1,
    "name": "shared",
    "dims": {"hidden_size": 32, "vocab_size": 64},
    "components": {
        "state": {"type": "mamba2", "num_heads": 4, "head_dim": 8, "d_state": 4, "bias": True},
        "attn": {"type": "attention", "num_heads": 4, "num_kv_heads": 2, "window_size": 8},
        "mlp": {"type": "mlp", "intermediate_size": 32},
    },
    "blocks": {"layer": ["state", "attn", "mlp"]},
    "stack": "layer",
}


def truth(model: dict[str, Any], size: int, registry: Registry | None = None) -> Truth:
    return devices(Subject(axon_compose.load(model, registry=registry).plan()), size)


@pytest.mark.parametrize("size", [2, 4])
def test_parts_give_what_the_whole_model_gives(size: int) -> None:
    found = truth(MODEL, size)
    assert found.passed, found
    assert found.name == "devices"
    assert found.figure is not None
    assert 0 < found.figure < 5e-6
    assert found.detail == "5 components split"


def test_a_bias_that_every_device_adds_is_found() -> None:
    registry = Registry.installed()
    right = registry.component("mamba2")

    def wrong(options: Any, dims: Dims, devices: int) -> Split | str:
        assert right.split is not None
        split = right.split(options, dims, devices)
        assert isinstance(split, Split)
        return replace(split, roles={name: role for name, role in split.roles.items() if role != "once"})

    planted = Registry.with_plugins({"acme": [replace(right, name="wrong", split=wrong)]})
    components = MODEL["components"] | {"state": MODEL["components"]["state"] | {"type": "acme/wrong"}}
    found = truth(MODEL | {"components": components}, 2, planted)
    assert not found.passed
    assert "first at row 0, position 0 of 83" in found.detail


def test_what_stays_whole_is_named() -> None:
    components = MODEL["components"] | {"mlp": {"type": "mlp", "intermediate_size": 33}}
    assert truth(MODEL | {"components": components}, 2).detail == "4 components split; whole: `mlp`"


def test_what_cannot_be_split_is_reported() -> None:
    model = MODEL | {"dims": {"hidden_size": 33, "vocab_size": 65}, "blocks": {"layer": ["mlp"]}}
    model["components"] = {"mlp": {"type": "mlp", "intermediate_size": 33}}
    found = check_plan(axon_compose.load(model).plan(), truths=[], devices=2).truths[0]
    assert not found.passed
    assert "can be split over 2 devices" in found.detail


def test_caches_of_parts_are_tried_in_batches_and_files_too() -> None:
    found = caches_on_devices(Subject(axon_compose.load(MODEL).plan()), 2)
    assert found.passed, found
    assert found.detail == "one-shot, chunks, steps, right-padded, joined, saved, trimmed"


def test_a_state_that_is_not_read_is_found_on_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(axon_compose.load(MODEL).plan())
    monkeypatch.setattr("axon_core.mamba2.read_states", lambda cache, mask, length: ([None, None], mask))
    found = caches_on_devices(subject, 2)
    assert not found.passed
    assert found.detail.startswith("chunks: chunks of 7; first at position 7 of 83; it begins in layer 0")


def layers(stack: str, **sections: Any) -> dict[str, Truth]:
    blocks = {"s": ["state"], "m": ["mlp"], "a": ["attn"]}
    plan = axon_compose.load(MODEL | {"blocks": blocks, "stack": stack} | sections).plan()
    return {truth.name: truth for truth in check_plan(plan, truths=[], devices=3).truths}


def test_layers_on_several_devices_give_what_one_gives() -> None:
    found = layers("s m a m")["pipeline"]
    assert found.passed, found
    assert (found.name, found.figure, found.detail) == ("pipeline", 0.0, "layers: 1, 1, 2")
    assert found.claim == "3 devices with some of the layers give what one gives, bit for bit"
    assert layers("s a")["pipeline"].claim.startswith("2 devices")
    assert "pipeline" not in layers("a")


def test_positions_that_a_device_does_not_count_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axon_compose.model._pipeline._count", lambda caches, batch, length: None)
    found = layers("s m a", embedding={"positions": 512})["pipeline"]
    assert not found.passed
    assert found.detail.startswith("chunks, rank 0, first at row 0, position 7 of 83")
