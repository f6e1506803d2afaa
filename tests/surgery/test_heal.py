"""Healing: changed layers learn by themselves, then predictions, and nothing else moves."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import axon_compose
from axon_compose import surgery
from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Budget, Cadence, Recipe
from axon_compose.learn.loss import distillation
from axon_compose.model import LanguageModel, run_alone
from axon_compose.proof.verify import layer_outputs
from axon_compose.surgery import Healed, heal, receipt
from axon_compose.surgery._changed import edited_from, size_of_learners
from axon_compose.surgery._matching import LayerMatching
from axon_compose.surgery._reach import other_reach, unreached
from axon_compose.surgery.recipe import recipe_of
from tests.helpers import described
from tests.learn.runs import weights

DIMS = {"hidden_size": 32, "vocab_size": 259}
RECIPE = Recipe(batch=4, length=24, learning_rate=1e-2, weight_decay=0.0)
SLOW = replace(surgery.RECIPE, batch=4, length=24)
NOTHING = Cadence(evaluations=2, samples=0, checkpoints=0)


def model(seed: int = 0, **sections: Any) -> LanguageModel:
    return axon_compose.load(described(**{"dims": DIMS} | sections)).build(seed=seed)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"the {n} of the {n + 1} is not the {n * 7}. " for n in range(300)))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model; the same with a state space of its own in place of the attention; one with a layer less."""
    place = tmp_path_factory.mktemp("models")
    source = model()
    source.layers[0].attn.update(tree_map(lambda w: 3 * w, source.layers[0].attn.parameters()))
    axon_compose.save(source, place / "source", tokenizer="bytes")
    replaced = model(seed=5, blocks={"a": ["ssm", "mlp"], "s": ["ssm"], "w": ["swa", "mlp"]})
    new = dict(tree_flatten(replaced.layers[0].ssm.parameters()))
    known = dict(tree_flatten(source.parameters()))
    replaced.load_weights(
        [(name, known[name]) for name, _ in tree_flatten(replaced.parameters()) if not name.startswith("layers.0.ssm")],
        strict=False,
    )
    axon_compose.save(replaced, place / "replaced", tokenizer="bytes")
    assert new.keys() == dict(tree_flatten(replaced.layers[0].ssm.parameters())).keys()
    shorter = model(stack="a w")
    axon_compose.save(shorter, place / "shorter", tokenizer="bytes")
    note(place / "shorter", {"origins": [0, 2], "changed": []})
    return {path.name: path for path in place.iterdir()}


def note(folder: Path, edit: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["axon_compose"]["edit"] = edit
    (folder / "config.json").write_text(json.dumps(config))


def go(
    folders: dict[str, Path], text: Path, out: Path, edited: str = "replaced", steps: int = 24, **more: Any
) -> Healed:
    options: dict[str, Any] = {"recipe": RECIPE, "budget": Budget("steps", steps), "cadence": NOTHING}
    return heal(folders[edited], folders["source"], text, out, **options | more)


@pytest.fixture(scope="module")
def healed(folders: dict[str, Path], text: Path, tmp_path_factory: pytest.TempPathFactory) -> Healed:
    return go(folders, text, tmp_path_factory.mktemp("healed") / "out")


def test_a_healed_replacement_predicts_more_like_its_source(healed: Healed) -> None:
    assert healed.after.divergence < 0.7 * healed.before.divergence
    assert [stage for stage, _, _ in healed.curve] == ["", "layers", "layers", "logits", "logits"]
    tokens = [tokens for _, tokens, _ in healed.curve]
    assert tokens == [0, 6 * 96, 12 * 96, 18 * 96, 24 * 96]
    assert healed.curve[0][2] == healed.before.divergence
    assert healed.curve[-1][2] == healed.after.divergence


def test_only_what_was_replaced_has_moved(healed: Healed, folders: dict[str, Path]) -> None:
    assert healed.outcome is not None
    before, after = weights(folders["replaced"]), weights(healed.outcome.out)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("layers.0.ssm.") for name in moved)


def test_the_receipt_is_that_of_the_folder(healed: Healed, folders: dict[str, Path]) -> None:
    assert healed.outcome is not None
    found = json.loads((healed.outcome.out / "receipts.json").read_text())
    assert found["after"]["divergence"] == healed.after.divergence
    assert found["before"]["divergence"] == healed.before.divergence
    lines = (healed.outcome.out / "metrics-layers.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines].count("step") == 12
    source, edited = (axon_compose.load_model(folder) for folder in (folders["source"], healed.outcome.out))
    again = receipt(source, edited, np.random.default_rng(0).integers(32, 120, (2, 24)))
    untouched = receipt(
        source, axon_compose.load_model(folders["replaced"]), np.random.default_rng(0).integers(32, 120, (2, 24))
    )
    assert again.divergence < untouched.divergence


def test_a_layer_that_is_the_teachers_own_has_no_loss_and_stays(
    folders: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    """To the bit in the mode of inference; in training other kernels round otherwise, and Adam follows roundings."""
    teacher, same = model(), model()
    tokens = mx.array(np.random.default_rng(0).integers(0, 259, (2, 9)))
    match = LayerMatching(teacher, [0, 1, 2], [0, 1, 2])

    def lost(weights: Any) -> mx.array:
        same.update(weights)
        taught = distillation(same, same.hidden(tokens), teacher, teacher.hidden(tokens), tokens)
        return match(same, tokens, tokens)[0] + taught.total

    loss, slopes = mx.value_and_grad(lost)(same.trainable_parameters())
    assert float(loss) == 0
    assert all(not slope.any() for _, slope in tree_flatten(slopes))
    recipe = replace(SLOW, learning_rate=3e-7)
    found = go(
        folders, text, tmp_path / "out", "source", steps=4, learn=["layers.0.attn"], recipe=recipe, by_divergence=False
    )
    assert found.before.exact
    assert found.after.divergence < 1e-6


def test_layers_match_on_the_teachers_input() -> None:
    teacher, edited = model(), model(seed=3)
    tokens = mx.array(np.random.default_rng(0).integers(0, 259, (2, 9)))
    targets = mx.where(mx.arange(9)[None] < 7, tokens, -100)
    gaps = LayerMatching(teacher, [0, 1, 2], [0, 2]).gaps(edited, tokens, targets)
    with layer_outputs(teacher) as states:
        teacher(tokens)
    for layer in (0, 2):
        out = run_alone(edited, tokens, {layer: states[layer]})[layer]
        x, g, h = (np.array(each, np.float64)[:, :7] for each in (states[layer], states[layer + 1], out))
        expected = (((h - g) ** 2).sum(-1) / ((g - x) ** 2).sum(-1)).sum()
        assert float(gaps[layer]) == pytest.approx(expected, rel=1e-4)


def test_no_gradient_runs_from_layer_to_layer() -> None:
    teacher, edited = model(), model(seed=3)
    tokens = mx.array(np.random.default_rng(0).integers(0, 259, (2, 9)))

    def last(weights: Any) -> mx.array:
        edited.update(weights)
        return LayerMatching(teacher, [0, 1, 2], [0, 2]).gaps(edited, tokens, tokens)[2]

    slopes = dict(tree_flatten(mx.grad(last)(edited.trainable_parameters())))
    moved = {name for name, slope in slopes.items() if float(mx.abs(slope).max()) > 0}
    assert moved
    assert all(name.startswith("layers.2.") for name in moved)


def test_layers_alone_are_the_model_with_shared_keys_too() -> None:
    components = described()["components"] | {"late": {"type": "attention", "num_heads": 2, "kv_from": "attn"}}
    found = model(
        components=components, blocks={"a": ["attn", "mlp"], "s": ["ssm"], "l": ["late", "mlp"]}, stack="a s l"
    )
    tokens = mx.array(np.random.default_rng(0).integers(0, 259, (2, 9)))
    with layer_outputs(found) as states:
        found(tokens)
    alone = run_alone(found, tokens, {0: states[0], 2: states[2]})
    for layer, out in alone.items():
        assert np.array_equal(np.array(out), np.array(states[layer + 1]))


class Killer:
    """Asks for an end, as Ctrl-C does, after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, metrics: Any, part: float) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)

    def evaluation(self, line: Any) -> None: ...

    def sample(self, line: Any) -> None: ...

    def checkpoint(self, folder: Path, steps: int) -> None: ...


@pytest.mark.parametrize("steps", [5, 12, 17], ids=["layers", "last of layers", "logits"])
def test_an_interrupted_run_goes_on_to_the_bit(
    steps: int, healed: Healed, folders: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    stopped = go(folders, text, tmp_path / "out", listeners=[Killer(steps)])
    assert stopped.outcome is not None
    assert not stopped.outcome.finished
    assert len(list(stopped.outcome.history.of("step"))) == steps - 12 * (steps > 12)
    done = go(folders, text, tmp_path / "out", resume=True)
    assert done.outcome is not None
    assert done.outcome.finished
    assert healed.outcome is not None
    one, other = weights(healed.outcome.out), weights(tmp_path / "out")
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert done.after == healed.after
    assert done.before == healed.before


def test_dropped_layers_leave_nothing_to_heal_unless_something_is_named(
    folders: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="but for layers that are gone") as caught:
        go(folders, text, tmp_path / "out", "shorter")
    assert caught.value.code == "AX953"
    found = go(folders, text, tmp_path / "out", "shorter", steps=4, learn=["layers.1.mlp"])
    assert [stage for stage, _, _ in found.curve[1:]] == ["logits", "logits"]  # no layer can learn by itself
    assert json.loads((tmp_path / "out" / "config.json").read_text())["axon_compose"]["edit"]["origins"] == [0, 2]


def test_a_model_that_predicts_as_its_source_is_left_as_it_is(
    folders: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    """Nearer than a thousandth of a nat; who names a learning rate, or wants it to learn the text, has said so."""
    near = axon_compose.load_model(folders["source"])
    near.layers[0].attn.update(tree_map(lambda w: 1.001 * w, near.layers[0].attn.parameters()))
    axon_compose.save(near, tmp_path / "near", tokenizer="bytes")
    folders = folders | {"near": tmp_path / "near"}
    options: dict[str, Any] = {"steps": 2, "learn": ["layers.0.attn"], "recipe": SLOW}
    with pytest.raises(CheckpointError, match="learning does harm") as caught:
        go(folders, text, tmp_path / "out", "near", **options)
    assert caught.value.code == "AX953"
    assert not (tmp_path / "out").exists()
    for more in ({"by_divergence": False}, {"weight": 0.5}):
        found = go(folders, text, tmp_path / "out", "near", force=True, **options | more)
        assert found.outcome is not None
        assert 0 < found.before.divergence < 1e-3


@pytest.mark.parametrize("changed", [["layers.2.swa"], []], ids=["noted", "without a record"])
def test_sequences_within_the_windows_are_warned_of(
    changed: list[str], folders: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    """A window of 8 becomes one of 12: in sequences of 8 both see all, in those of 9 one forgets the first token."""
    components = described()["components"]
    wider = model(components=components | {"swa": components["swa"] | {"window_size": 12}})
    wider.update(axon_compose.load_model(folders["source"]).parameters())
    axon_compose.save(wider, tmp_path / "wider", tokenizer="bytes")
    if changed:
        note(tmp_path / "wider", {"origins": [0, 1, 2], "changed": changed})
    folders = folders | {"wider": tmp_path / "wider"}
    told: list[Any] = []
    for length, codes in ((8, ["AX957"]), (9, [])):
        told.clear()
        recipe = replace(SLOW, length=length, learning_rate=1e-9)
        more: dict[str, Any] = {"force": True, "warn": told.append, "by_divergence": length == 8}
        found = go(folders, text, tmp_path / "out", "wider", 2, recipe=recipe, **more)
        assert [warning.code for warning in told] == codes
        assert found.warnings == tuple(told)
        assert [stage for stage, _, _ in found.curve[1:]] == ["logits", "logits"]  # no layer finds what windows hide
        assert (found.before.divergence > 1e-6) == (length > 8)
    assert "`swa`" in str(unreached_of(folders["wider"], folders["source"], 8))


def test_windows_with_new_weights_have_something_to_learn_from_short_sequences(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    components = described()["components"]
    other = model(seed=9, components=components | {"swa": components["swa"] | {"window_size": 12}})
    axon_compose.save(other, tmp_path / "other", tokenizer="bytes")
    assert not unreached_of(tmp_path / "other", folders["source"], 8)


def test_other_options_beside_a_window_have_something_to_learn_from_short_sequences(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    components = described()["components"]
    wider = model(components=components | {"swa": components["swa"] | {"window_size": 12, "rope": {"theta": 500.0}}})
    wider.update(axon_compose.load_model(folders["source"]).parameters())
    axon_compose.save(wider, tmp_path / "other", tokenizer="bytes")
    assert not unreached_of(tmp_path / "other", folders["source"], 8)


def unreached_of(edited: Path, source: Path, length: int) -> Any:
    before, after = axon_compose.load_model(source), axon_compose.load_model(edited)
    return unreached(other_reach(edited_from(None, before.plan, after.plan), before, after), length)


def test_a_rise_of_the_divergence_is_warned_of(folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    recipe = replace(RECIPE, learning_rate=3e-2)
    more = {"first": 0, "learn": ["*"], "weight": 0, "recipe": recipe, "by_divergence": False}
    found = go(folders, text, tmp_path / "out", steps=8, warn=told.append, **more)
    assert found.after.divergence > found.before.divergence
    assert [warning.code for warning in told] == ["AX958"]
    assert found.warnings == tuple(told)


def test_the_learning_rate_follows_the_divergence_and_the_weights(healed: Healed, folders: dict[str, Path]) -> None:
    """An edit whose weights are twice as far off is four times as far in nats; half the weights take half the step."""
    recipe = replace(RECIPE, learning_rate=3e-4)
    assert recipe_of(recipe, "logits", 7.0) == recipe_of(recipe, "logits", 1.0) == recipe
    assert recipe_of(recipe, "logits", 0.25).learning_rate == 1.5e-4
    assert recipe_of(recipe, "layers", 0.25).learning_rate == 1.5e-3
    assert 0 < recipe_of(recipe, "logits", 0.0).learning_rate < 1e-6
    assert recipe_of(recipe, "logits", 1.0, 0.1).learning_rate == 1.5e-4
    for broken in (0.0, float("nan"), float("inf")):
        assert recipe_of(recipe, "logits", float("nan"), broken) == recipe
    assert healed.outcome is not None
    records = [
        (healed.outcome.out / name).read_text().splitlines() for name in ("metrics-layers.jsonl", "metrics.jsonl")
    ]
    layers, logits = (max(json.loads(line).get("learning_rate", 0) for line in lines) for lines in records)
    assert layers == pytest.approx(10 * logits, rel=0.1)
    matrices = [
        array.reshape(-1)
        for name, array in weights(folders["replaced"]).items()
        if name.startswith("layers.0.ssm.") and array.ndim > 1
    ]
    size = np.concatenate(matrices).astype(np.float64).std() / 0.2
    assert logits == pytest.approx(RECIPE.learning_rate * size * min(1, healed.before.divergence) ** 0.5, rel=0.1)


def test_other_tokens_are_refused(folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    cut = model(dims={"hidden_size": 32, "vocab_size": 300})
    axon_compose.save(cut, tmp_path / "cut", tokenizer="bytes")
    note(tmp_path / "cut", {"origins": [0, 1, 2], "changed": [], "vocabulary": list(range(259)) + [-1] * 41})
    with pytest.raises(CheckpointError, match="not one of") as caught:
        heal(tmp_path / "cut", folders["source"], text, tmp_path / "out")
    assert caught.value.code == "AX954"


def test_a_part_is_from_0_to_1(folders: dict[str, Path], text: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        go(folders, text, tmp_path / "out", first=1.5)


def test_smaller_weights_take_smaller_steps(
    healed: Healed, folders: dict[str, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = model()
    learner.freeze()
    learner.layers[0].attn.unfreeze()
    learner.update(tree_map(lambda w: mx.full(w.shape, 0.3), learner.parameters()))
    assert size_of_learners(learner) == pytest.approx(0.3, rel=1e-5)
    monkeypatch.setattr("axon_compose.surgery._heal.size_of_learners", lambda model: size_of_learners(model) / 10)
    go(folders, text, tmp_path / "out", steps=2)
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    most = max(json.loads(line).get("learning_rate", 0) for line in lines)
    assert 0 < most < 0.2 * RECIPE.learning_rate * min(1, healed.before.divergence) ** 0.5
