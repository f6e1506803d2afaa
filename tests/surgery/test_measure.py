"""What is measured on a text is what NumPy finds in what the layers read and give."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import axon_compose
from axon_compose.diagnostics import CheckpointError
from axon_compose.model import LanguageModel
from axon_compose.proof.verify import layer_outputs
from axon_compose.surgery._measure import block_influence, channel_importance, expert_usage, measured
from tests.helpers import described

TOKENS = np.random.default_rng(0).integers(0, 64, (3, 16))
MOE = {"type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 24}


def model(**sections: Any) -> LanguageModel:
    return axon_compose.load(described(**sections)).build(seed=0)


def mixed() -> LanguageModel:
    components = described()["components"] | {"moe": MOE}
    return model(components=components, blocks={"a": ["attn", "mlp"], "e": ["ssm", "moe"]}, stack="a e e")


def test_block_influence_is_one_minus_the_cosine() -> None:
    found = model()
    with layer_outputs(found) as seen:
        found(mx.array(TOKENS))
    states = [np.array(each, np.float64) for each in seen]
    expected = []
    for x, y in pairwise(states):
        cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
        expected.append(1 - cosine.mean())
    assert block_influence(found, TOKENS) == pytest.approx(expected, rel=1e-4)


def test_a_layer_that_adds_nothing_has_no_influence() -> None:
    found = model()
    block = found.layers[1]
    for use in found.plan.layers[1].uses():
        if use.key == "ssm":
            block.module(use).out_proj.weight = mx.zeros_like(block.module(use).out_proj.weight)
    influence = block_influence(found, TOKENS)
    assert influence[1] == 0
    assert min(influence[0], influence[2]) > 1e-4


def test_experts_are_counted_as_they_are_chosen() -> None:
    """The router's best two, by its own matrix."""
    found = mixed()
    usage = expert_usage(found, TOKENS)
    assert set(usage) == {"layers.1.moe", "layers.2.moe"}
    router = found.layers[1].moe.gate
    read: list[np.ndarray] = []

    def listen(x: mx.array) -> mx.array:
        read.append(np.array(x, np.float64).reshape(-1, 32))
        return router(x)  # type: ignore[no-any-return]

    found.layers[1].moe.gate = _Function(listen)
    found(mx.array(TOKENS))
    best = np.argsort(-(read[0] @ np.array(router.weight, np.float64).T), axis=-1)[:, :2]
    expected = np.bincount(best.reshape(-1), minlength=4) / best.size
    assert usage["layers.1.moe"] == pytest.approx(expected, abs=1e-12)


class _Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def test_the_importance_of_a_channel_is_what_it_adds() -> None:
    """Channel by channel: the output of the layer with that channel alone."""
    found = model()
    mlp = found.layers[0].mlp
    importance = channel_importance(found, TOKENS, ["layers.0.mlp"])["layers.0.mlp"]
    assert importance.shape == (48,)
    assert found.layers[0].mlp.down_proj is mlp.down_proj  # what listened is gone
    read: list[mx.array] = []
    original = mlp.down_proj

    def listen(x: mx.array) -> mx.array:
        read.append(x)
        return original(x)  # type: ignore[no-any-return]

    mlp.down_proj = _Function(listen)
    found(mx.array(TOKENS))
    inner = np.array(read[0], np.float64).reshape(-1, 48)
    weight = np.array(original.weight, np.float64)
    for channel in (0, 17, 47):
        added = inner[:, channel, None] * weight[:, channel]
        assert importance[channel] == pytest.approx(np.sqrt((added**2).sum(-1).mean()), rel=1e-5)


def test_what_transfers_need() -> None:
    found = measured(mixed(), TOKENS, {"layers.0.mlp": "importance", "layers.2.moe": "usage"})
    assert {path: {name: array.shape for name, array in each.items()} for path, each in found.items()} == {
        "layers.0.mlp": {"importance": (48,)},
        "layers.2.moe": {"usage": (4,)},
    }
    assert found["layers.2.moe"]["usage"].sum() == pytest.approx(1)


@pytest.mark.parametrize("wanted", [{"layers.0.mlp": "usage"}, {"layers.1.moe": "importance"}])
def test_what_a_component_does_not_show_is_refused(wanted: dict[str, str]) -> None:
    with pytest.raises(CheckpointError, match="does not show") as caught:
        measured(mixed(), TOKENS, wanted)
    assert caught.value.code == "AX952"
