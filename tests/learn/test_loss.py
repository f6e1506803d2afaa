"""The loss in pieces, against float64 NumPy, and its memory against the form with all logits."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from axon_compose import load
from axon_compose.learn.loss import Taught, cross_entropy, distillation
from axon_compose.model import FolderModel, LanguageModel, with_folder_names
from axon_compose.registry import ComponentSpec, Options, Registry

VOCABULARY = 53


class PlainOptions(Options):
    """A head that says nothing of what it reads."""


class PlainHead(nn.Module):
    def __init__(self, options: Any, dims: Any) -> None:
        super().__init__()
        self.shift = mx.random.normal((dims.vocab_size,))

    def __call__(self, h: mx.array, embedding: Any) -> mx.array:
        return mx.tanh(embedding.as_linear(h)) * 2 + self.shift


PLAIN = ComponentSpec(
    name="plain",
    kind="head",
    options=PlainOptions,
    module=f"{__name__}:PlainHead",
    summary="Half declared.",
    params=lambda options, dims: {"shift": (dims.vocab_size,)},
)


def make(head: dict[str, Any] | None = None, vocabulary: int = VOCABULARY, **dims: int) -> LanguageModel:
    text = {
        "version": 1,
        "dims": {"hidden_size": 32, "vocab_size": vocabulary, **dims},
        "components": {"mlp": {"type": "mlp", "intermediate_size": 48}},
        "blocks": {"layer": ["mlp"]},
        "stack": "layer",
        "head": head or {},
    }
    if "embedding_size" in dims:
        text["embedding"] = {"size": dims["embedding_size"]}
    model = load(text, registry=Registry.with_plugins({"acme": [PLAIN]})).build()
    keys = iter(mx.random.split(mx.random.key(3), 100))
    moved = [(n, v + 0.3 * mx.random.normal(v.shape, key=next(keys))) for n, v in tree_flatten(model.parameters())]
    model.load_weights(moved)
    model.train()
    return model


HEADS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "tied": ({}, {}),
    "tied, all options": ({"bias": True, "gain": True, "scale": 0.7, "softcap": 4.0}, {}),
    "untied": ({"tied": False}, {}),
    "untied, all options": ({"tied": False, "bias": True, "gain": True, "scale": 0.7, "softcap": 4.0}, {}),
    "tied through a narrower table": ({"softcap": 4.0}, {"embedding_size": 16}),
    "a plugin's": ({"type": "acme/plain"}, {}),
}


@pytest.fixture(scope="module")
def texts() -> tuple[mx.array, mx.array, mx.array]:
    """Tokens, targets of which some are left out, and weights, each (3, 7)."""
    keys = mx.random.split(mx.random.key(5), 3)
    tokens, targets = (mx.random.randint(0, VOCABULARY, (3, 7), key=key) for key in keys[:2])
    out = mx.arange(21).reshape(3, 7) % 5 == 2
    return tokens, mx.where(out, -100, targets), mx.random.uniform(0.5, 2.0, (3, 7), key=keys[2])


def logits_of(model: LanguageModel, tokens: mx.array) -> np.ndarray[Any, Any]:
    return np.array(model(tokens).astype(mx.float32), np.float64).reshape(-1, VOCABULARY)


def partition_of(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    top = scores.max(-1)
    return top + np.log(np.exp(scores - top[:, None]).sum(-1))


@pytest.mark.parametrize("chunk", [1, 4, 21, 1000, None])
def test_sums_are_those_of_float64(chunk: int | None, texts: tuple[mx.array, ...]) -> None:
    model = make({"bias": True, "softcap": 4.0})
    tokens, targets, weights = texts
    scores, wanted, factor = logits_of(model, tokens), np.array(targets).reshape(-1), np.array(weights).reshape(-1)
    counts = wanted != -100
    partition = partition_of(scores)
    nll = (factor * (partition - scores[np.arange(21), np.where(counts, wanted, 0)]))[counts].sum()
    square = (factor * partition**2)[counts].sum()
    for gradient in (True, False):
        found = cross_entropy(
            model, model.hidden(tokens), targets, weights=weights, z_loss=0.01, chunk=chunk, gradient=gradient
        )
        assert found.nll.item() == pytest.approx(nll, rel=1e-6)
        assert found.z.item() == pytest.approx(square, rel=1e-6)
        assert found.total.item() == pytest.approx(nll + 0.01 * square, rel=1e-6)
        assert found.number.item() == pytest.approx(factor[counts].sum(), rel=1e-6)


def whole(model: LanguageModel, tokens: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    """The loss by all logits at once and MLX's own gradient."""
    scores = model(tokens).astype(mx.float32)
    partition = mx.logsumexp(scores, axis=-1)
    score = mx.take_along_axis(scores, mx.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    each = weights * (partition - score + 0.01 * partition**2)
    return 3 * mx.where(targets == -100, 0, each).sum()


def in_pieces(model: LanguageModel, tokens: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    found = cross_entropy(model, model.hidden(tokens), targets, weights=weights, z_loss=0.01, chunk=4)
    return 3 * found.total


def gradients(loss: Any, model: LanguageModel, *inputs: mx.array) -> dict[str, mx.array]:
    return dict(tree_flatten(nn.value_and_grad(model, loss)(model, *inputs)[1]))


def assert_same(found: dict[str, mx.array], right: dict[str, mx.array], within: float = 2e-6) -> None:
    assert found.keys() == right.keys()
    for name, value in right.items():
        scale = max(mx.abs(value).max().item(), 1e-6)
        assert mx.abs(found[name] - value).max().item() <= within * scale * 10, name


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_are_those_of_the_whole(kind: str, texts: tuple[mx.array, ...]) -> None:
    head, dims = HEADS[kind]
    model = make(head, **dims)
    assert_same(gradients(in_pieces, model, *texts), gradients(whole, model, *texts))


def test_gradients_are_the_slopes_in_float64(texts: tuple[mx.array, ...]) -> None:
    """Of a tied table: p - y at the head, by NumPy."""
    model = make()
    tokens, targets, weights = texts
    h = model.hidden(tokens)
    rows, table = np.array(h, np.float64).reshape(21, -1), np.array(model.embedding.embed_tokens.weight, np.float64)
    scores, wanted = rows @ table.T, np.array(targets).reshape(-1)
    partition = partition_of(scores)
    factor = np.where(wanted == -100, 0, np.array(weights, np.float64).reshape(-1))[:, None]
    share = np.exp(scores - partition[:, None])
    slope = factor * (share - np.eye(VOCABULARY)[np.maximum(wanted, 0)] + 0.02 * partition[:, None] * share)

    def loss(h: mx.array, table: mx.array) -> mx.array:
        model.embedding.embed_tokens.weight = table
        return cross_entropy(model, h, targets, weights=weights, z_loss=0.01, chunk=4).total

    of_h, of_table = mx.grad(loss, argnums=(0, 1))(h, mx.array(model.embedding.embed_tokens.weight))
    np.testing.assert_allclose(np.array(of_h).reshape(21, -1), slope @ table, rtol=0, atol=2e-6)
    np.testing.assert_allclose(np.array(of_table), slope.T @ rows, rtol=0, atol=2e-5)


def test_a_compiled_step_and_a_folder_model_have_the_same_gradients(texts: tuple[mx.array, ...]) -> None:
    model = make({"tied": False, "bias": True})
    right = gradients(whole, model, *texts)
    folder: FolderModel = with_folder_names(model)
    folder.train()
    found = {folder.plan_name(name): value for name, value in gradients(in_pieces, folder, *texts).items()}
    assert_same(found, right)
    step = mx.compile(lambda *inputs: nn.value_and_grad(model, in_pieces)(model, *inputs)[1], inputs=model.state)
    assert_same(dict(tree_flatten(step(*texts))), right)


def test_what_is_frozen_gets_no_gradient_and_stays(texts: tuple[mx.array, ...]) -> None:
    model = make({"tied": False})
    right = gradients(whole, model, *texts)
    before = mx.array(model.head.lm_head.weight)
    model.head.freeze()
    found = gradients(in_pieces, model, *texts)
    assert "head.lm_head.weight" not in found
    assert_same(found, {name: value for name, value in right.items() if not name.startswith("head.")})
    assert mx.array_equal(before, model.head.lm_head.weight)


def test_a_target_of_minus_100_is_no_token(texts: tuple[mx.array, ...]) -> None:
    """`mlx.nn.losses.cross_entropy` counts it as the token `vocabulary - 100`."""
    model = make(vocabulary=131)
    tokens, targets, _ = texts
    kept = np.array(targets).reshape(-1) != -100
    theirs = nn.losses.cross_entropy(model(tokens), targets, reduction="none").reshape(-1)
    found = cross_entropy(model, model.hidden(tokens), targets)
    assert found.number.item() == kept.sum() < targets.size
    assert found.nll.item() == pytest.approx(np.array(theirs)[kept].sum().item(), rel=1e-5)
    assert abs(found.nll.item() - theirs.sum().item()) > 1.0
    moved = cross_entropy(model, model.hidden(tokens), mx.where(targets == -100, 31, targets))
    assert moved.nll.item() == pytest.approx(theirs.sum().item(), rel=1e-5)  # so that is what they count


def test_a_model_in_half_precision_has_a_loss_in_float32() -> None:
    """The softmax of 512 similar scores in bfloat16 sums to 1.5, as its denominator stops growing at 256."""
    model = make(vocabulary=512)
    model.embedding.embed_tokens.weight = 1e-3 * model.embedding.embed_tokens.weight
    model.set_dtype(mx.bfloat16)
    tokens = mx.arange(64)[None]
    scores = np.array(model(tokens).astype(mx.float32), np.float64).reshape(64, -1)
    right = (partition_of(scores) - scores[np.arange(64), np.arange(64)]).sum()
    found = cross_entropy(model, model.hidden(tokens), tokens)
    assert found.total.dtype == mx.float32
    assert found.nll.item() == pytest.approx(right, rel=1e-5)
    theirs = -mx.log(mx.softmax(model(tokens), axis=-1)[0, mx.arange(64), mx.arange(64)]).astype(mx.float32).sum()
    assert abs(theirs.item() - right) > 0.05 * right


def test_gradients_of_pieces_are_added_in_float32() -> None:
    """With a table in bfloat16, where 256 + 1 is 256."""
    model = make()
    model.set_dtype(mx.bfloat16)
    tokens = mx.zeros((1, 600), mx.int32)

    def loss(chunk: int) -> Any:
        return lambda model: cross_entropy(model, mx.ones((1, 600, 32), mx.bfloat16), tokens, chunk=chunk).total

    one, all_ = (gradients(loss(chunk), model)["embedding.embed_tokens.weight"] for chunk in (1, 600))
    assert mx.abs((one - all_).astype(mx.float32)).max().item() <= 0.01 * mx.abs(all_.astype(mx.float32)).max().item()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_the_divergence_from_the_teacher(temperature: float, texts: tuple[mx.array, ...]) -> None:
    model, teacher = make({"softcap": 4.0}), make({"tied": False, "scale": 2.0}, hidden_size=48)
    tokens, targets, weights = texts

    def lesson(model: LanguageModel, chunk: int = 4, gradient: bool = True) -> Taught:
        states = model.hidden(tokens), teacher.hidden(tokens)
        return distillation(
            model, states[0], teacher, states[1], targets,
            temperature=temperature, weights=weights, chunk=chunk, gradient=gradient,
        )  # fmt: skip

    def plainly(model: LanguageModel) -> mx.array:
        p, q = (mx.softmax(one(tokens) / temperature, axis=-1) for one in (teacher, model))
        each = (mx.stop_gradient(p) * (mx.log(mx.stop_gradient(p)) - mx.log(q))).sum(-1)
        return temperature**2 * mx.where(targets == -100, 0, weights * each).sum()

    p, q = (
        scores - partition_of(scores)[:, None]
        for scores in (logits_of(one, tokens) / temperature for one in (teacher, model))
    )
    factor = np.where(np.array(targets).reshape(-1) == -100, 0, np.array(weights).reshape(-1))
    right = (factor * (np.exp(p) * (p - q)).sum(-1)).sum()
    scores = logits_of(model, tokens)
    wanted = np.maximum(np.array(targets).reshape(-1), 0)
    nll = (factor * (partition_of(scores) - scores[np.arange(len(scores)), wanted])).sum()
    assert lesson(model).divergence.item() == pytest.approx(right, rel=1e-4)
    assert lesson(model).nll.item() == pytest.approx(nll, rel=1e-5)  # of the text, softened by nothing
    assert lesson(model, gradient=False).total.item() == pytest.approx(temperature**2 * right, rel=1e-4)
    assert_same(gradients(lambda m: lesson(m).total, model), gradients(plainly, model), within=2e-5)


def test_a_teacher_of_another_vocabulary_is_refused(texts: tuple[mx.array, ...]) -> None:
    model, teacher = make(), make(vocabulary=54)
    h = model.hidden(texts[0])
    with pytest.raises(ValueError, match="vocabulary has 54 tokens, the model's 53"):
        distillation(model, h, teacher, h, texts[1])
    with pytest.raises(ValueError, match="above 0"):
        distillation(model, h, model, h, texts[1], temperature=0)


def peak(loss: Any, model: LanguageModel, length: int) -> int:
    """Bytes beyond the weights at the worst moment of a step."""
    tokens = mx.zeros((1, length), mx.int32)
    weights = mx.zeros((1, length))
    mx.eval(model.parameters(), tokens, weights)
    mx.synchronize()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(nn.value_and_grad(model, loss)(model, tokens, tokens, weights))
    return mx.get_peak_memory() - before


def test_memory_does_not_hold_the_logits_of_the_batch() -> None:
    """Eight times the tokens take eight times the hidden states, which are small beside a vocabulary of 8192."""
    model = make(vocabulary=8192)
    logits = 4 * 8192 * 2048
    few, many = (peak(in_few_pieces, model, length) for length in (256, 2048))
    assert many < logits / 2
    assert many < 1.7 * few
    assert peak(whole, model, 2048) > 2 * logits


def in_few_pieces(model: LanguageModel, tokens: mx.array, targets: mx.array, weights: mx.array) -> mx.array:
    return cross_entropy(model, model.hidden(tokens), targets, weights=weights, chunk=64).total
