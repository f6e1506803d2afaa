"""The load of experts: counted right, shown, and evened out by a loss or by a bias."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import axon_compose
from axon_compose.learn import Budget, Recipe, Trainer
from axon_compose.learn.balance import Balance, falls_of, switch_loss
from axon_compose.learn.objective import NextTokens
from axon_compose.model import LanguageModel, with_folder_names
from tests.learn.small import Counting

RECIPE = Recipe(batch=4, length=12, learning_rate=3e-3)
EXPERTS = {"num_experts": 4, "top_k": 2, "intermediate_size": 16}


def make(**options: Any) -> LanguageModel:
    """Two layers that share weights, and one whose router is another's."""
    text = {
        "version": 1,
        "dims": {"hidden_size": 32, "vocab_size": 64},
        "components": {"attn": {"type": "attention", "num_heads": 2}, "moe": {"type": "moe", **EXPERTS, **options}},
        "blocks": {"a": ["attn", "moe"], "twice": {"branches": ["moe"], "share": "one"}},
        "stack": "a twice*2",
    }
    return axon_compose.load(text).build()


def routed(model: LanguageModel, tokens: mx.array) -> dict[str, Any]:
    return model.observed(tokens, routing=True)[1]


def test_loads_are_those_of_numpy() -> None:
    """Tokens that do not count have no load."""
    model, batch = make(), Counting(left_out=5).at(0)
    values = routed(model, batch.tokens)
    balance = Balance(model.plan, loss=0.5)
    total, loads = balance.figures(values, batch.targets)
    counts = np.array(batch.targets).reshape(-1) != -100
    right = 0.0
    assert loads.keys() == {"load.0.moe", "load.1.moe", "load.2.moe"}
    for name in ("0.moe", "1.moe", "2.moe"):
        scores, chosen = (np.array(each).reshape(48, -1)[counts] for each in values[f"{name}.routing"])
        shares = np.bincount(chosen.reshape(-1), minlength=4) / chosen.size
        np.testing.assert_allclose(np.array(loads[f"load.{name}"]) / counts.sum(), shares, rtol=1e-6)
        right += 0.5 * 4 * (shares * scores.astype(np.float64).mean(0)).sum() * counts.sum()
    assert total.item() == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize(("type_", "options"), [
    ("moe", {"score": "sigmoid"}), ("moe", {"identity_experts": 2}), ("shared_expert_moe", {}),
])  # fmt: skip
def test_an_even_load_has_a_loss_of_one_and_a_router_of_one_mind_of_more(type_: str, options: dict[str, Any]) -> None:
    counts = mx.ones((8, 1))
    even = mx.full((8, 4), 0.25)
    chosen = mx.array([[0, 1], [2, 3]] * 4)
    assert switch_loss(even, falls_of(chosen, 4, counts) / 16, counts).item() == pytest.approx(1.0)
    alike = mx.array([[0.97, 0.01, 0.01, 0.01]] * 8)
    first = falls_of(mx.zeros((8, 1), mx.int32), 4, counts) / 8
    assert switch_loss(alike, first, counts).item() == pytest.approx(3.88)
    text = {
        "version": 1,
        "dims": {"hidden_size": 32, "vocab_size": 64},
        "components": {"moe": {"type": type_, **EXPERTS, **options}},
        "blocks": {"a": ["moe"]},
        "stack": "a",
    }
    found = axon_compose.load(text).build()
    scores, picks = routed(found, mx.zeros((1, 3), mx.int32))["0.moe.routing"]
    assert scores.shape == (1, 3, 4 + options.get("identity_experts", 0))
    assert picks.shape == (1, 3, 2)


def test_routing_is_published_only_where_it_is_asked_for_and_changes_nothing() -> None:
    model, tokens = make(), mx.arange(12)[None]
    h, values = model.observed(tokens)
    seen, more = model.observed(tokens, routing=True)
    assert mx.array_equal(h, seen)
    assert more.keys() - values.keys() == {f"{layer}.moe.routing" for layer in range(3)}


def crowded(model: LanguageModel) -> LanguageModel:
    """With routers that send nearly every token to the same experts."""
    for layer in (0, 1):
        gate = model.layers[layer]["moe"].gate
        gate.weight = 0.02 * gate.weight + mx.array([[0.2], [0.1], [-0.1], [-0.2]]) * mx.ones((1, 32))
    model.embedding.embed_tokens.weight = mx.abs(model.embedding.embed_tokens.weight)
    return model


def worst(model: LanguageModel, recipe: Recipe, steps: int = 40) -> tuple[float, float]:
    trainer = Trainer(crowded(model), Counting(), recipe, Budget("steps", steps))
    first = trainer.step().more["load.worst"]
    while not trainer.done:
        last = trainer.step().more["load.worst"]
    return first, last


def test_the_loss_evens_out_the_load() -> None:
    recipe = replace(RECIPE, balance_rate=0.0)
    first, last = worst(make(), replace(recipe, balance_loss=0.1))
    without = worst(make(), replace(recipe, balance_loss=0.0))[1]
    assert first > 1.8  # of at most 2, where both choices always fall on the same experts
    assert last < 1.5
    assert last < without - 0.2


def test_a_bias_evens_out_the_load_without_a_gradient() -> None:
    options = {"score": "sigmoid", "correction_bias": True}
    recipe = replace(RECIPE, learning_rate=1e-5, balance_loss=10.0)  # the loss is not for routers with a bias
    first, last = worst(make(**options), replace(recipe, balance_rate=0.05))
    without = worst(make(**options), replace(recipe, balance_rate=0.0))[1]
    assert first > 1.6 < without
    assert last < 1.4


def test_a_bias_moves_by_the_load_of_the_whole_step() -> None:
    """Whatever the parts; of layers that share a router, by that of both."""
    after = []
    for parts in (1, 4):
        model = crowded(make(score="sigmoid", correction_bias=True))
        trainer = Trainer(model, Counting(left_out=3), replace(RECIPE, accumulate=parts, balance_rate=0.25), None)
        trainer.step()
        after.append([np.array(model.layers[layer]["moe"].correction_bias) for layer in (0, 1)])
    np.testing.assert_array_equal(after[0], after[1])
    assert set(np.abs(after[0]).reshape(-1)) <= {0.0, 0.25}
    assert after[0][0].tolist() == [-0.25, -0.25, 0.25, 0.25]


def test_the_bias_of_a_folder_model_moves_too() -> None:
    model = with_folder_names(crowded(make(correction_bias=True)))
    balance = Balance(model.plan, rate=0.5)
    loads = {name: mx.array([1.0, 0.0, 0.0, 0.0]) for name in ("load.0.moe", "load.1.moe", "load.2.moe")}
    balance.settle(model, loads)
    biases = [value for name, value in tree_flatten(model.parameters()) if name.endswith("correction_bias")]
    assert [bias.tolist() for bias in biases] == [[-0.5, 0.5, 0.5, 0.5]] * 2


def test_gradients_in_segments_and_compiled_are_the_same() -> None:
    model, batch = make(), Counting().at(0)
    found = []
    for segment in (0, 1, 2):
        objective = NextTokens(model.plan, replace(RECIPE, balance_loss=1.0, segment=segment))
        run = nn.value_and_grad(model, lambda m, objective=objective: objective(m, *batch)[0])
        found.append(dict(tree_flatten(run(model)[1])))
    for other in found[1:]:
        assert all(mx.allclose(other[name], value, atol=1e-5).item() for name, value in found[0].items())


def test_a_table_of_tokens_and_models_without_experts_have_nothing_to_balance() -> None:
    assert not Balance(make(hashed=True).plan)
    assert not Balance(axon_compose.load("llama").plan())
