"""A step is what it says: the mean over the targets that count, whatever the parts, and the same again to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from axon_compose.diagnostics import CheckpointError
from axon_compose.learn import Batch, Budget, Recipe, Trainer
from axon_compose.learn._compiling import pays
from axon_compose.learn.trainer import Diverged
from tests.learn.small import VOCABULARY, Counting, model

RECIPE = Recipe(batch=4, length=12, learning_rate=1e-2, warmup=0.1)


def weights(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in tree_flatten(trainer.model.parameters())}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def losses(trainer: Trainer) -> list[float]:
    found = []
    while not trainer.done:
        found.append(trainer.step().loss)
    return found


def test_it_learns_to_count() -> None:
    trainer = Trainer(model(), Counting(), RECIPE, Budget("steps", 60))
    before = trainer.evaluate()
    found = losses(trainer)
    assert before["tokens"] == 2 * 4 * 12
    assert trainer.evaluate()["loss"] < 0.5 < found[0]
    assert trainer.spent.steps == 60
    assert trainer.spent.tokens == 60 * 48


def test_the_loss_is_that_of_float64() -> None:
    """The mean of the negative log-probabilities of the targets that count, computed by NumPy."""
    batches = Counting(left_out=5)
    trainer = Trainer(model(), batches, RECIPE, Budget("steps", 3))
    tokens, targets = batches.at(0)
    scores = np.array(trainer.model(tokens)).astype(np.float64)
    scores -= scores.max(-1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    wanted = [-logs[b, t, targets[b, t].item()] for b in range(4) for t in range(12 - 5)]
    assert trainer.step().loss == pytest.approx(np.mean(wanted), rel=1e-6)


def test_what_is_left_out_moves_nothing() -> None:
    """Two texts that differ only where nothing is asked, in the targets, give the same step."""

    class Other(Counting):
        def at(self, step: int) -> Batch:
            tokens, targets = super().at(step)
            changed = mx.where(mx.arange(12) >= 7, (tokens + 9) % VOCABULARY, tokens)
            return Batch(changed, targets)

    trainers = [Trainer(model(), data(left_out=5), RECIPE, Budget("steps", 2)) for data in (Counting, Other)]
    found = [losses(trainer) for trainer in trainers]
    assert found[0] == found[1]


@pytest.mark.parametrize("left_out", [0, 5])
def test_parts_of_a_step_are_the_step(left_out: int) -> None:
    class Uneven(Counting):
        """The first sequence asks for less than the others, so a mean of means would be another number."""

        def at(self, step: int) -> Batch:
            tokens, targets = super().at(step)
            return Batch(
                tokens, mx.where((mx.arange(4)[:, None] == 0) & (mx.arange(12) >= 12 - left_out), -100, targets)
            )

    steps = [Trainer(model(), Uneven(), replace(RECIPE, accumulate=parts), Budget("steps", 2)) for parts in (1, 2, 4)]
    found = [trainer.step() for trainer in steps]
    for other in found[1:]:
        assert other.loss == pytest.approx(found[0].loss, rel=1e-6)
        assert other.gradient_norm == pytest.approx(found[0].gradient_norm, rel=1e-5)


def test_an_evaluation_is_the_mean_over_all_targets_and_in_parts_too() -> None:
    """As many sequences at once as in a step, also where the last batch has fewer."""

    class Uneven(Counting):
        def held_out(self) -> list[Batch]:
            (one, two), other = super().held_out()
            return [Batch(one, mx.where(mx.arange(4)[:, None] == 1, -100, two)), Batch(*(each[:3] for each in other))]

    trainers = [Trainer(model(), Uneven(), replace(RECIPE, accumulate=parts)) for parts in (1, 2, 4)]
    logits = [np.array(trainers[0].model(batch.tokens), np.float64) for batch in Uneven().held_out()]
    terms = [
        np.log(np.exp(row).sum()) - row[target]
        for scores, batch in zip(logits, Uneven().held_out(), strict=True)
        for row, target in zip(scores.reshape(-1, VOCABULARY), np.array(batch.targets).ravel(), strict=True)
        if target != -100
    ]
    for parts, trainer in zip((1, 2, 4), trainers, strict=True):
        sizes: list[int] = []
        inner = trainer._judge
        trainer._judge = lambda tokens, targets, inner=inner, sizes=sizes: (
            sizes.append(len(tokens)) or inner(tokens, targets)  # type: ignore[func-returns-value]
        )
        found = trainer.evaluate()
        assert found["tokens"] == len(terms) == 3 * 12 + 3 * 12
        assert found["loss"] == pytest.approx(float(np.mean(terms)), rel=1e-5)
        assert max(sizes) == 4 // parts


ROUTED = {
    "components": {"attn": {"type": "attention", "num_heads": 2}, "moe": {
        "type": "moe", "num_experts": 4, "top_k": 2, "intermediate_size": 16,
        "correction_bias": True}},
    "blocks": {"a": ["attn", "moe"]},
    "stack": "a*2",
}  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "options"),
    [
        ({}, {}),
        ({}, {"optimizer": "muon", "schedule": "wsd", "accumulate": 2}),
        ({}, {"dtype": "bfloat16", "segment": 1, "z_loss": 1e-4}),
        (ROUTED, {"balance_rate": 0.01}),
    ],
    ids=["plain", "muon", "bfloat16", "routed"],
)
def test_it_continues_to_the_bit(sections: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    budget, recipe = Budget("steps", 9), replace(RECIPE, **options)
    whole = Trainer(model(**sections), Counting(), recipe, budget)
    wanted = losses(whole)
    first = Trainer(model(**sections), Counting(), recipe, budget)
    found = [first.step().loss for _ in range(5)]
    first.save(tmp_path)
    second = Trainer(model(seed=7, **sections), Counting(), recipe, budget)
    second.restore(tmp_path)
    assert found + losses(second) == wanted
    assert same(weights(second), weights(whole))
    assert second.spent.tokens == whole.spent.tokens


def test_trainers_take_turns() -> None:
    """Steps between those of another one are those of a run of its own."""
    alone = losses(Trainer(model(), Counting(), RECIPE, Budget("steps", 6)))
    one, other = (Trainer(model(seed), Counting(), RECIPE, Budget("steps", 6)) for seed in (0, 1))
    found = []
    while not one.done:
        found.append(one.step().loss)
        other.step()
    assert found == alone


def test_compiled_is_not_compiled() -> None:
    found = [
        losses(Trainer(model(stack="a"), Counting(), replace(RECIPE, compile=how), Budget("steps", 3)))
        for how in ("on", "off")
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        (Budget("steps", 500), True),
        (Budget("steps", 499), False),
        (Budget("tokens", 500 * 48), True),
        (Budget("minutes", 5), False),
        (Budget("minutes", 10), True),
        (Budget("flops", 1e20), False),
    ],
    ids=str,
)
def test_long_runs_are_compiled(budget: Budget, wanted: bool) -> None:
    assert pays(budget, 48) == (wanted or mx.default_device() != mx.cpu)


def test_half_precision_computes_over_full_weights() -> None:
    trainer = Trainer(model(), Counting(), replace(RECIPE, dtype="bfloat16"), Budget("steps", 15))
    found = losses(trainer)
    assert {value.dtype for _, value in tree_flatten(trainer.model.parameters())} == {mx.float32}
    full = losses(Trainer(model(), Counting(), RECIPE, Budget("steps", 15)))
    assert found != full
    assert found[-1] == pytest.approx(full[-1], abs=0.3)


def test_what_is_frozen_stays() -> None:
    trained = model()
    trained.layers[0].freeze()
    trainer = Trainer(trained, Counting(), RECIPE, Budget("steps", 2))
    before = weights(trainer)
    losses(trainer)
    after = weights(trainer)
    moved = {name for name in after if not np.array_equal(after[name], before[name])}
    assert moved
    assert not [name for name in moved if name.startswith("layers.0.")]


def test_nothing_to_train_is_refused() -> None:
    trained = model()
    trained.freeze()
    with pytest.raises(ValueError, match="every parameter is frozen"):
        Trainer(trained, Counting())


@pytest.mark.parametrize(
    ("weight", "where"),
    [
        (True, "the weight `embedding.embed_tokens.weight`"),
        (False, r"the output of layer 1 \(`s`\)"),
    ],
)
def test_a_loss_that_is_not_finite_stops_with_its_place(weight: bool, where: str) -> None:
    trainer = Trainer(model(), Counting(), RECIPE, Budget("steps", 3))
    trainer.step()
    if weight:
        table = trainer.model.embedding.embed_tokens
        table.weight = table.weight.at[3, 0].add(float("nan"))
    else:
        inner = trainer.model.layers[1]

        def broken(x: mx.array, *arguments: Any) -> Any:
            out, published = type(inner).__call__(inner, x, *arguments)
            return out * float("inf"), published

        trainer.model.layers[1] = _Broken(inner, broken)
    before = weights(trainer)
    with pytest.raises(Diverged, match=f"in step 1: the first that is not finite is {where}") as raised:
        trainer.step()
    assert raised.value.diagnostic.code == "AX803"
    assert all(np.array_equal(value, before[name], equal_nan=True) for name, value in weights(trainer).items())
    assert trainer.spent.steps == 1


class _Broken:
    def __init__(self, inner: Any, run: Any) -> None:
        self._inner, self._run = inner, run

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_layer_that_raises_leaves_the_weights_as_they_were() -> None:
    """What MLX traces by is in their place while a gradient is made."""
    trainer = Trainer(model(), Counting(), RECIPE, Budget("steps", 2))
    before = weights(trainer)
    inner = trainer.model.layers[1]

    def broken(*arguments: Any) -> Any:
        raise ArithmeticError

    trainer.model.layers[1] = _Broken(inner, broken)
    with pytest.raises(ArithmeticError):
        trainer.step()
    trainer.model.layers[1] = inner
    assert same(weights(trainer), before)
    assert trainer.step().loss == Trainer(model(), Counting(), RECIPE, Budget("steps", 2)).step().loss


def test_an_evaluation_counts_right_answers() -> None:
    """By NumPy; in parts, and with targets that do not count."""
    batches = Counting(left_out=5)
    for parts in (1, 4):
        trainer = Trainer(model(), batches, replace(RECIPE, accumulate=parts))
        right = total = 0
        for tokens, targets in batches.held_out():
            counts = np.array(targets) != -100
            right += ((np.array(trainer.model(tokens)).argmax(-1) == np.array(targets)) & counts).sum()
            total += counts.sum()
        found = trainer.evaluate(accuracy=True)
        assert found["accuracy"] == right / total
        assert found["tokens"] == total
        assert found["loss"] == pytest.approx(trainer.evaluate()["loss"], rel=1e-6)


def test_an_evaluation_without_targets_has_no_loss() -> None:
    found = Trainer(model(), Counting(left_out=12)).evaluate(accuracy=True)
    assert found.pop("tokens") == 0
    assert all(np.isnan(value) for value in found.values())


@pytest.mark.parametrize("accuracy", [False, True])
def test_an_evaluation_that_is_not_finite_says_where(accuracy: bool) -> None:
    trainer = Trainer(model(), Counting(), RECIPE)
    trainer.model.norm.weight = trainer.model.norm.weight * float("nan")
    with pytest.raises(Diverged, match=r"the loss is nan in step 0: .* the weight `norm.weight`"):
        trainer.evaluate(accuracy=accuracy)
    assert trainer.model.training


def test_another_state_is_refused(tmp_path: Path) -> None:
    begun = Trainer(model(), Counting(), RECIPE, Budget("steps", 3))
    with pytest.raises(CheckpointError) as missing:
        begun.restore(tmp_path)
    assert missing.value.diagnostic.code == "AX801"
    begun.save(tmp_path)
    with pytest.raises(CheckpointError) as other:
        Trainer(model(stack="a s"), Counting(), RECIPE, Budget("steps", 3)).restore(tmp_path)
    assert other.value.diagnostic.code == "AX802"
    assert any("layers.2." in note for note in other.value.diagnostic.details)
    with pytest.raises(CheckpointError) as changed:
        Trainer(model(), Counting(), replace(RECIPE, seed=1), Budget("steps", 4)).restore(tmp_path)
    assert changed.value.diagnostic.code == "AX804"
    assert "`amount` was 3, and is 4" in changed.value.diagnostic.details


def test_a_full_disk_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(model(), Counting(), RECIPE, Budget("steps", 3))
    path = trainer.save(tmp_path)
    before = path.read_bytes()
    trainer.step()

    def full(path: str, *arguments: Any) -> None:
        Path(path).write_bytes(before[:100])
        raise RuntimeError("[save] Failed to write: no space left on device")

    monkeypatch.setattr(mx, "save_safetensors", full)
    with pytest.raises(CheckpointError) as raised:
        trainer.save(tmp_path)
    assert raised.value.diagnostic.code == "AX503"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_gone_is_named_with_the_reason(tmp_path: Path) -> None:
    trainer = Trainer(model(), Counting(), RECIPE, Budget("steps", 3))
    with pytest.raises(CheckpointError) as raised:
        trainer.save(tmp_path / "gone")
    place = tmp_path / "gone" / "training.safetensors"
    assert raised.value.message == f"cannot write `{place}`: no such file or directory"
