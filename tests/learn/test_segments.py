"""What is computed again in the backward pass is what was computed: the same gradients, in less memory."""

from __future__ import annotations

import gc
import re
from threading import Thread
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_unflatten

import axon_compose
from axon_compose.analysis.cost import cost
from axon_compose.learn import Budget, Recipe, Trainer
from axon_compose.learn.loss import cross_entropy
from axon_compose.model import LanguageModel, random_weights, with_folder_names
from axon_compose.model._segments import _DRAWS, _drawing_from
from axon_compose.proof.check import small_architecture
from axon_compose.registry import ComponentSpec, Options, Registry
from tests import processors
from tests.helpers import described
from tests.learn.small import Counting


def gradients(model: LanguageModel, segment: int) -> dict[str, mx.array]:
    tokens, targets = Counting().at(0)

    def loss(model: LanguageModel) -> mx.array:
        h, _ = model.observed(tokens, segment=segment)
        return cross_entropy(model, h, targets).total

    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


def same(one: dict[str, mx.array], other: dict[str, mx.array]) -> bool:
    scale = {name: mx.abs(value).max() for name, value in one.items()}
    return one.keys() == other.keys() and all(
        (mx.abs(one[name] - other[name]).max() <= 1e-5 * scale[name] + 1e-6).item() for name in one
    )


#: Shared weights, values that cross layers, a residual scheme, values of the embedding, tables of tokens.
MODELS = [
    "hybrid-demo", "zamba2", "gemma3n_text", "kimi_k3", "rwkv7", "shared-kv", "deepseek_v4", "longcat_flash_ngram",
]  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_without_segments(name: str) -> None:
    model = random_weights(small_architecture(axon_compose.load(name).plan()).plan())
    model.train()
    right = gradients(model, 0)
    for segment in (1, 2, 100):
        assert same(right, gradients(model, segment)), segment


def test_a_folder_model_and_frozen_layers_too() -> None:
    model = with_folder_names(axon_compose.load(described(stack="(a s w)*2")).build())
    model.train()
    model.layers[1].freeze()
    right = gradients(model, 0)
    assert not any("layers.1." in name for name in right)
    assert same(right, gradients(model, 4))


class NoiseOptions(Options):
    """A layer with a dropout."""


class Noise(nn.Module):
    """`x` by a matrix after a dropout of half of its numbers."""

    def __init__(self, options: Any, dims: Any) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.proj = nn.Linear(dims.hidden_size, dims.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.proj(mx.tanh(self.proj(self.dropout(x))))


NOISE = ComponentSpec(
    name="noise",
    kind="layer",
    options=NoiseOptions,
    module=f"{__name__}:Noise",
    summary="Drops numbers.",
    params=lambda options, dims: {"proj.weight": (dims.hidden_size, dims.hidden_size)},
)


@pytest.fixture
def noisy() -> LanguageModel:
    components = described()["components"] | {"noise": {"type": "acme/noise"}}
    text = described(components=components, blocks={"a": ["attn", "noise", "mlp"]}, stack="a*4")
    model = axon_compose.load(text, registry=Registry.with_plugins({"acme": [NOISE]})).build()
    model.train()
    return model


def slope(model: LanguageModel, loss: Any, grads: dict[str, mx.array]) -> float:
    """The central difference along the gradient, as a part of its length, with the same random numbers."""
    weights = dict(tree_flatten(model.trainable_parameters()))
    length = mx.sqrt(sum((grad * grad).sum() for grad in grads.values())).item()
    step, ends = 3e-3 / length, []
    for sign in (1, -1):
        model.load_weights([(name, weights[name] + sign * step / length * grads[name]) for name in grads], strict=False)
        mx.random.seed(11)
        ends.append(loss(model).item())
    model.load_weights(list(weights.items()), strict=False)
    return (ends[0] - ends[1]) / (2 * step) / length


def measured(model: LanguageModel, run: Any) -> float:
    tokens, targets = Counting().at(0)

    def loss(model: LanguageModel) -> mx.array:
        return cross_entropy(model, run(model, tokens), targets).total / targets.size

    mx.random.seed(11)
    grads = dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))
    mx.eval(grads)
    return slope(model, loss, grads)


def test_a_dropout_draws_the_same_mask_again(noisy: LanguageModel) -> None:
    """The gradient is the slope of the loss that was computed."""
    found = measured(noisy, lambda model, tokens: model.observed(tokens, segment=2)[0])
    assert found == pytest.approx(1.0, abs=0.05)


def test_a_dropout_in_checkpoints_as_mlx_lm_makes_them_draws_another(noisy: LanguageModel) -> None:
    """`mlx_lm.tuner.trainer.grad_checkpoint`, whose random state runs on: why there are segments of our own."""
    from mlx_lm.tuner.trainer import grad_checkpoint

    kind = type(noisy.layers[0])
    original = kind.__call__
    try:
        grad_checkpoint(noisy.layers[0])
        found = measured(noisy, lambda model, tokens: model.hidden(tokens))
    finally:
        kind.__call__ = original
    assert abs(found - 1.0) > 0.2


def test_random_numbers_go_on_behind_segments(noisy: LanguageModel) -> None:
    """Two segments, and two passes, have masks of their own."""
    mx.random.seed(3)
    tokens = mx.arange(12)[None]
    first, second = (noisy.observed(tokens, segment=2)[0] for _ in range(2))
    assert not mx.array_equal(first, second)
    mx.random.seed(3)
    assert mx.array_equal(noisy.observed(tokens, segment=2)[0], first)


def functions() -> dict[str, Any]:
    return {name: getattr(mx.random, name) for name in _DRAWS}


def test_every_function_that_draws_has_its_key_where_mlx_says() -> None:
    said = {}
    for name in dir(mx.random):
        names = re.findall(r"(\w+): ", str(getattr(mx.random, name).__doc__).split("\n")[0])
        if "key" in names[1:]:
            said[name] = names.index("key")
    assert said == _DRAWS


def test_a_key_that_a_layer_gives_is_the_one_that_is_drawn_from() -> None:
    """By its name or its place; `None` in its place is no key."""
    one, other = mx.random.split(mx.random.key(1))
    right = mx.random.normal((3,), key=one)
    with _drawing_from(other):
        drawn = [
            mx.random.normal((3,), mx.float32, None, None, one),
            mx.random.normal((3,), key=one),
            mx.random.normal((3,), mx.float32, None, None, None, mx.cpu),
        ]
    with _drawing_from(other):
        again = mx.random.normal((3,))
    assert mx.array_equal(drawn[0], right)
    assert mx.array_equal(drawn[1], right)
    assert mx.array_equal(drawn[2], again)
    assert not mx.array_equal(again, right)


def test_another_thread_draws_as_before_and_takes_its_turn() -> None:
    """Two that overlap would put each other's functions back in the place of MLX's."""
    before, seen = functions(), list[Any]()

    def draw() -> None:
        seen.append(mx.random.uniform(shape=(3,)).tolist())

    def segment() -> None:
        with _drawing_from(mx.random.key(2)):
            seen.append("segment")

    def run(target: Any, wait: float | None) -> Thread:
        thread = Thread(target=target, daemon=True)
        thread.start()
        thread.join(wait)
        return thread

    mx.random.seed(4)
    run(draw, None)
    mx.random.seed(4)
    with _drawing_from(mx.random.key(2)):
        mx.random.uniform(shape=(3,))
        run(draw, None)
        waiting = run(segment, 0.05)
        assert seen == [seen[0], seen[0]]
    waiting.join()
    assert seen[2] == "segment"
    assert functions() == before


def test_a_layer_that_raises_leaves_model_and_functions_as_they_were(noisy: LanguageModel) -> None:
    before, weights = functions(), dict(tree_flatten(noisy.parameters()))
    tokens = mx.arange(12)[None]
    mx.random.seed(3)
    right = noisy.observed(tokens, segment=2)[0]
    inner = noisy.layers[1]["noise"].dropout
    noisy.layers[1]["noise"].dropout = lambda x: 1 / 0

    def loss(model: LanguageModel) -> mx.array:
        return model.observed(tokens, segment=2)[0].sum()

    with pytest.raises(Exception, match="ZeroDivisionError"):
        nn.value_and_grad(noisy, loss)(noisy)
    noisy.layers[1]["noise"].dropout = inner
    noisy.update(tree_unflatten(list(weights.items())))  # MLX's own function leaves its traced arrays in the model
    assert functions() == before
    mx.random.seed(3)
    assert mx.array_equal(noisy.observed(tokens, segment=2)[0], right)


@pytest.fixture(scope="module")
def peaks() -> dict[tuple[str, int], tuple[int, int]]:
    """Of steps of the trainer on eight layers: the peak, and what `cost` predicts, by kind of layer and segment."""
    found = {}
    for kind in ("attn", "mamba"):
        text = {
            "version": 1,
            "dims": {"hidden_size": 128, "vocab_size": 64},
            "components": {
                "attn": {"type": "attention", "num_heads": 4},
                "mamba": {"type": "mamba2", "head_dim": 32, "d_state": 16},
                "mlp": {"type": "mlp", "intermediate_size": 512},
            },
            "blocks": {"a": [kind, "mlp"]},
            "stack": "a*8",
        }
        del text["components"]["mamba" if kind == "attn" else "attn"]  # type: ignore[attr-defined]
        for segment in (0, 1, 2):
            found[kind, segment] = measured_peak(text, segment)
    return found


def measured_peak(text: Any, segment: int) -> tuple[int, int]:
    architecture = axon_compose.load(text)
    (sheet,) = cost(architecture.plan(), context=256, batch=2, dtype="float32", training=True, segment=segment).contexts
    recipe = Recipe(batch=2, length=256, segment=segment)
    gc.collect()
    mx.synchronize()
    before = mx.get_active_memory()
    trainer = Trainer(architecture.build(), Counting(batch=2, length=256), recipe, Budget("steps", 20))
    # On one processor Python hands over more than MLX has computed and freed.
    with processors.shared():
        trainer.step()
        mx.synchronize()
        mx.reset_peak_memory()
        # When MLX frees an array depends on the threads of a busy machine, mostly earlier: the worst of several steps.
        for done in range(12):
            trainer.step()
            if done >= 2 and mx.get_peak_memory() - before > 0.9 * sheet.needed_bytes:
                break
    return mx.get_peak_memory() - before, sheet.needed_bytes


def test_segments_need_less_memory(peaks: Any) -> None:
    """A whole step of the trainer: clipping must not keep what each segment computes again."""
    for kind in ("attn", "mamba"):
        assert peaks[kind, 1][0] < 0.6 * peaks[kind, 0][0]


def test_cost_predicts_the_memory_of_segments(peaks: Any) -> None:
    for (kind, segment), (peak, predicted) in peaks.items():
        assert predicted == pytest.approx(peak, rel=0.15), (kind, segment)


def test_cost_predicts_the_memory_of_a_large_vocabulary() -> None:
    """The scores of the whole batch would be 67 MB, and four times that with their gradient."""
    text = {
        "version": 1,
        "dims": {"hidden_size": 64, "vocab_size": 32768},
        "components": {"mlp": {"type": "mlp", "intermediate_size": 256}},
        "blocks": {"m": ["mlp"]},
        "stack": "m*2",
    }
    peak, predicted = measured_peak(text, 0)
    assert predicted == pytest.approx(peak, rel=0.15)
