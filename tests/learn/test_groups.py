"""Every parameter of every shipped architecture is in one group, and none decays that should not."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import axon_compose
from axon_compose.learn import Batch, Budget, Recipe, Trainer
from axon_compose.learn.groups import Group, Grouped, groups, make_optimizer, set_learning_rate
from axon_compose.learn.muon import Muon, orthogonal
from axon_compose.proof.check import small_architecture
from axon_compose.registry import ComponentSpec, Dims, Learning, Options, Registry
from axon_compose.testing import check_layer
from tests.helpers import described
from tests.learn.small import Counting
from tests.shipped import VARIED, shipped

RECIPE: Final = Recipe(weight_decay=0.1, learning_rate=1e-2)
#: What the literature leaves alone, found by its name as papers and Hugging Face's code have it.
NEVER: Final = re.compile(
    r"(^|[._])(bias|\w*bias|A_log|D|dt_bias|sinks|gain|head_gain|scale|base|recurrent_param|per_expert_scale|skip|gate"
    r"|x_[rwkvag]|k_[ka]|r_k|alpha_[pn]|beta|eps)$|norm(_\d)?\.weight$|embed(ding|_tokens|_positions)\.weight$"
    r"|embedders\.\d+\.weight$|experts_of_token$|(^|\.)fn$"
)
#: Matrices, which do.
ALWAYS: Final = re.compile(r"(q|k|v|o|gate|up|down|in|out|x)_proj\.weight$|switch_mlp\.\w+\.weight$|lm_head\.weight$")


@pytest.fixture(scope="module")
def plans() -> dict[str, Any]:
    """Of small copies, which have the same parameters in fewer layers."""
    return {name: small_architecture(shipped(name).plan()).plan() for name in VARIED}


def test_every_parameter_is_in_one_group_and_the_right_ones_decay(plans: dict[str, Any]) -> None:
    for name, plan in plans.items():
        found = groups(plan)
        assert found.keys() == {parameter for parameter, _ in plan.parameters()}, name
        for parameter, group in found.items():
            if NEVER.search(parameter):
                assert not group.decays, (name, parameter)
            elif ALWAYS.search(parameter):
                assert group.decays, (name, parameter)
            assert group.decays or not group.matrix, (name, parameter)


def test_what_is_named_by_nobody_is_a_matrix(plans: dict[str, Any]) -> None:
    """No parameter falls through both lists without having two axes."""
    for name, plan in plans.items():
        found = groups(plan)
        for parameter, shape in plan.parameters():
            if not NEVER.search(parameter) and not ALWAYS.search(parameter):
                vector = len(shape) < 2
                assert found[parameter].decays is not vector or "proj.weight" in parameter, (name, parameter)


def test_a_name_that_is_declared_is_that_of_a_parameter() -> None:
    """The conformance kit asks the examples of a record."""
    spec = replace(Registry.installed().component("linear"), learning=Learning(undecayed=("linear.wieght",)))
    with pytest.raises(AssertionError, match=r"`learning\.undecayed` names `linear\.wieght`"):
        check_layer(spec, {}, truths=())


def test_every_built_in_layer_declares_how_its_matrices_begin() -> None:
    """None is left with what MLX makes of a linear layer, whatever the depth of the model."""
    dims = Dims({"hidden_size": 32, "vocab_size": 16})
    for name, spec in Registry.installed().components().items():
        assert isinstance(spec.options, type), name
        shapes = spec.params(spec.options.model_validate(spec.examples[0]), dims).values()
        if spec.kind == "layer" and any(len(shape) > 1 for shape in shapes):
            assert spec.learning.initial is not None, spec.name


def test_routers_and_tables_stay_with_adamw_and_experts_do_not(plans: dict[str, Any]) -> None:
    found = groups(plans["qwen3_next"])
    matrices = {re.sub(r"\d+", "N", name) for name, group in found.items() if group.matrix}
    assert "layers.N.moe.switch_mlp.gate_proj.weight" in matrices
    assert not any(re.search(r"embed|lm_head|moe\.gate|conv|norm", name) for name in matrices)


class Plain(Options):
    """No options."""


def test_a_plugin_declares_rates_and_what_does_not_decay() -> None:
    learning = Learning(undecayed=("table",), adamw=("mix",), rates={"t*": 0.5})
    assert learning.decays("mix", (4, 4))
    assert not learning.decays("table", (4, 4))
    assert not learning.decays("vector", (4,))
    assert not learning.decays("deep.bias", (4, 4))
    assert learning.matrix("other", (4, 4))
    assert not learning.matrix("mix", (4, 4))
    assert not learning.matrix("stack", (2, 4, 4))
    assert Learning(stacked=("stack",)).matrix("stack", (2, 4, 4))
    assert (learning.rate("table"), learning.rate("mix")) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Learning(undecayed="A_log"), "`learning.undecayed` must be a tuple of texts"),  # type: ignore[arg-type]
        (Learning(rates={"A_log": -1.0}), "`learning.rates` must map names to factors of 0 and more"),
        (Learning(initial={}), "`learning.initial` must be a function of options and dims"),  # type: ignore[arg-type]
        (None, "`learning` must be a `Learning`"),
    ],
)
def test_a_wrong_declaration_is_a_fault_of_the_plugin(wrong: Any, told: str) -> None:
    spec = ComponentSpec("odd", "layer", Plain, "a:b", "Odd.", learning=wrong)
    status = next(s for s in Registry.with_plugins({"acme": [spec]}).statuses() if s.namespace == "acme")
    assert told in status.cause


@pytest.fixture
def model() -> Any:
    section = {"moe": {"type": "moe", "num_experts": 2, "top_k": 1, "intermediate_size": 16}}
    time = {"time": {"type": "rwkv7_time_mix", "head_dim": 8}}
    components = described()["components"] | section | time
    return axon_compose.load(
        described(components=components, blocks={"a": ["attn", "moe"], "t": ["time"], "s": ["ssm"]}, stack="a t s")
    ).build()


def moved(model: Any, recipe: Recipe, gradient: float) -> tuple[dict[str, mx.array], dict[str, mx.array], Grouped]:
    """The parameters before and after a step with the same number as every gradient."""
    before = {name: mx.array(value) for name, value in tree_flatten(model.trainable_parameters())}
    optimizer = make_optimizer(model, recipe)
    set_learning_rate(optimizer, recipe.learning_rate)
    gradients = [(name, mx.full(value.shape, gradient)) for name, value in before.items()]
    optimizer.update(model, tree_unflatten(gradients))
    return before, dict(tree_flatten(model.trainable_parameters())), optimizer


def test_without_a_gradient_only_what_decays_moves(model: Any) -> None:
    for optimizer in ("adamw", "muon"):
        before, after, _ = moved(model, replace(RECIPE, optimizer=optimizer), 0.0)
        for name, group in groups(model.plan).items():
            if name in before:
                factor = 1 - 1e-3 if group.decays else 1.0
                assert mx.allclose(after[name], factor * before[name], rtol=1e-6, atol=0).item(), name


def test_steps_are_those_of_adamw_in_float64(model: Any) -> None:
    """Three of them, with the norm clipped, the bias corrected, and decay and rate of each group."""
    recipe = Recipe(batch=4, length=12, learning_rate=1e-2, warmup=0.5, clip=0.5, weight_decay=0.3)
    trainer = Trainer(model, Counting(), recipe, Budget("steps", 3))
    declared, gradients = groups(model.plan), list[dict[str, np.ndarray]]()
    inner = trainer._accumulated

    def seen(batch: Batch) -> Any:
        found = inner(batch)
        gradients.append({name: np.array(value, np.float64) for name, value in tree_flatten(found[0])})
        return found

    trainer._accumulated = seen  # type: ignore[method-assign]
    weights = {name: np.array(value, np.float64) for name, value in tree_flatten(model.trainable_parameters())}
    mean, square = ({name: np.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    for step in range(1, 4):
        metrics = trainer.step()
        norm = np.sqrt(sum((value**2).sum() for value in gradients[-1].values()))
        assert metrics.gradient_norm == pytest.approx(norm, rel=1e-5)
        assert norm > recipe.clip
        assert metrics.learning_rate == pytest.approx(recipe.learning_rate_at((step - 0.5) / 3))
        for name, slope in gradients[-1].items():
            slope = slope * recipe.clip / norm
            mean[name] = recipe.beta1 * mean[name] + (1 - recipe.beta1) * slope
            square[name] = recipe.beta2 * square[name] + (1 - recipe.beta2) * slope**2
            rate = metrics.learning_rate * declared[name].rate
            size = np.sqrt(square[name] / (1 - recipe.beta2**step)) + recipe.epsilon
            decay = recipe.weight_decay if declared[name].decays else 0.0
            weights[name] = weights[name] * (1 - rate * decay) - rate * mean[name] / (1 - recipe.beta1**step) / size
    for name, value in tree_flatten(model.trainable_parameters()):
        assert np.allclose(np.array(value), weights[name], rtol=1e-4, atol=2e-5), name


def test_a_rate_is_a_factor_of_the_step(model: Any) -> None:
    """RWKV-7's bias of the decays learns twice as fast; the first step of Adam is the learning rate."""
    before, after, optimizer = moved(model, replace(RECIPE, weight_decay=0.0), 1.0)
    step = {name: mx.abs(after[name] - value).max().item() for name, value in before.items()}
    fast = [name for name in step if name.endswith("w_lora.lora.2.bias")]
    assert fast
    assert all(step[name] == pytest.approx(2e-2 if name in fast else 1e-2, rel=1e-2) for name in step)
    assert optimizer.learning_rate.item() == pytest.approx(1e-2)
    set_learning_rate(optimizer, 3e-3)
    assert optimizer.learning_rate.item() == pytest.approx(3e-3)


def test_muon_moves_matrices_by_orthogonal_steps(model: Any) -> None:
    """Each expert by itself, as large as a step of AdamW."""
    recipe = replace(RECIPE, optimizer="muon", weight_decay=0.0)
    before = {name: mx.array(value) for name, value in tree_flatten(model.trainable_parameters())}
    optimizer = make_optimizer(model, recipe)
    keys = iter(mx.random.split(mx.random.key(1), 200))
    gradients = [(name, mx.random.normal(value.shape, key=next(keys))) for name, value in before.items()]
    optimizer.update(model, tree_unflatten(gradients))
    after = dict(tree_flatten(model.trainable_parameters()))
    experts = [name for name in before if name.endswith("switch_mlp.gate_proj.weight")]
    single = [name for name in before if name.endswith("attn.q_proj.weight")]
    for name in (*experts, *single):
        for step in np.array(after[name] - before[name], np.float64).reshape(-1, *before[name].shape[-2:]):
            values = np.linalg.svd(step, compute_uv=False) / (1e-2 * 0.2 * max(step.shape) ** 0.5)
            assert 0.4 < values.min() <= values.max() < 1.3, name
            assert np.sqrt((step**2).mean()) == pytest.approx(0.2 * 1e-2, rel=0.45)


def test_muon_as_mlx_has_it_mixes_experts_and_loses_its_decay() -> None:
    """What our subclass is there for."""
    stack = mx.random.normal((3, 8, 4), key=mx.random.key(0))
    theirs = optim.Muon(1.0, weight_decay=0.0)
    theirs.init({"w": stack})
    mixed = stack - theirs.apply_gradients({"w": stack}, {"w": stack})["w"]
    singular = np.linalg.svd(np.array(mixed), compute_uv=False)
    assert singular.max() / singular.min() > 2.0
    ours = np.linalg.svd(np.array(orthogonal(stack)), compute_uv=False)
    assert ours.max() / ours.min() < 2.0
    steps = []
    for decay in (0.0, 0.1):
        muon = optim.Muon(1e-2, weight_decay=decay)
        muon.init({"w": mx.eye(4)})
        steps.append(muon.apply_gradients({"w": mx.eye(4)}, {"w": mx.eye(4)})["w"])
    assert mx.allclose(*steps, atol=1e-5).item()  # the pull is in the direction of the gradient, and normalised away
    ours_ = Muon(1e-2, weight_decay=0.1)
    ours_.init({"w": mx.eye(4)})
    assert mx.allclose(ours_.apply_gradients({"w": mx.zeros((4, 4))}, {"w": mx.eye(4)})["w"], 0.999 * mx.eye(4)).item()


def test_unknown_parameters_are_those_of_adapters(model: Any) -> None:
    model.layers[0]["attn"].q_proj.lora_a = mx.ones((4, 4))
    optimizer = make_optimizer(model, replace(RECIPE, optimizer="muon"))
    paths = {path for part in optimizer.optimizers for path, _ in tree_flatten(part.state) if "lora_a" in path}
    assert {path.rpartition(".")[2] for path in paths} == {"m", "v"}
    assert Group(True, False) in groups(model.plan).values()
