"""What a receipt says is what NumPy finds in float64, and 0 where nothing was changed."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

import axon_compose
from axon_compose.learn.divergence import divergence
from axon_compose.model import LanguageModel
from axon_compose.proof.verify import layer_outputs
from axon_compose.surgery import receipt
from tests.helpers import described

TOKENS = np.random.default_rng(0).integers(0, 64, (3, 20))


def model(seed: int = 0, **sections: Any) -> LanguageModel:
    return axon_compose.load(described(**sections)).build(seed=seed)


def disturbed(by: float = 0.02) -> LanguageModel:
    """The model of `model()` with noise on the weights of its last layer."""
    found = model()
    mx.random.seed(1)
    found.layers[2].update(tree_map(lambda w: w + by * mx.random.normal(w.shape), found.layers[2].parameters()))
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(-1, keepdims=True))


def perplexity(p: np.ndarray, tokens: np.ndarray) -> float:
    chosen = np.take_along_axis(p[:, :-1], tokens[:, 1:, None], axis=-1)
    return float(np.exp(-np.log(chosen).mean()))


def probabilities(found: LanguageModel, tokens: np.ndarray = TOKENS) -> np.ndarray:
    return softmax(np.array(found(mx.array(tokens)), np.float64))


def test_every_figure_is_what_numpy_finds_in_float64() -> None:
    source, edited = model(), disturbed()
    found = receipt(source, edited, TOKENS)
    p, q = probabilities(source), probabilities(edited)
    apart = (p * (np.log(p) - np.log(q))).sum(-1)
    assert found.divergence == pytest.approx(apart.mean(), rel=1e-4)
    assert found.most == pytest.approx(apart.max(), rel=1e-4)
    assert found.most_at == tuple(np.argwhere(apart == apart.max())[0] + 1)
    assert found.agreement == (p.argmax(-1) == q.argmax(-1)).mean()
    assert 0 < found.agreement < 1
    assert found.source_perplexity == pytest.approx(perplexity(p, TOKENS), rel=1e-5)
    assert found.perplexity == pytest.approx(perplexity(q, TOKENS), rel=1e-5)
    assert [(each.first, each.last) for each in found.stretches] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 20)]
    means = [apart[:, each.first - 1 : each.last].mean() for each in found.stretches]
    assert [each.divergence for each in found.stretches] == pytest.approx(means, rel=1e-4)
    gaps = []
    with layer_outputs(source) as theirs, layer_outputs(edited) as ours:
        source(mx.array(TOKENS)), edited(mx.array(TOKENS))
    for g, h in zip(theirs[1:], ours[1:], strict=True):
        g, h = np.array(g, np.float64), np.array(h, np.float64)
        gaps.append((np.linalg.norm(h - g, axis=-1) / np.linalg.norm(g, axis=-1)).mean())
    assert [each.gap for each in found.layers] == pytest.approx(gaps, rel=1e-4, abs=1e-12)
    assert found.parted == 2
    assert not found.exact


def test_the_same_model_has_a_receipt_of_zeros() -> None:
    found = receipt(model(), model(), TOKENS)
    assert found.exact
    assert found.divergence == found.most == 0
    assert found.agreement == 1
    assert found.perplexity == found.source_perplexity
    assert [each.gap for each in found.layers] == [0, 0, 0]
    assert found.parted is None
    assert not any(each.changed for each in found.layers)


@pytest.mark.parametrize("kind", ["hyper_connections", "altup", "attention_residuals"])
def test_states_of_a_residual_scheme_are_compared_too(kind: str) -> None:
    scheme = {"residual": {"type": kind}}
    source, edited = model(**scheme), model(**scheme)
    edited.layers[1].ssm.update(tree_map(lambda w: 1.5 * w, edited.layers[1].ssm.parameters()))
    found = receipt(source, edited, TOKENS)
    assert found.parted == 1
    assert [each.gap == 0 for each in found.layers] == [True, False, False]


def test_a_window_differs_behind_itself_alone() -> None:
    """The attention of layer 0 sees 8 tokens: the first 8 are those of full attention."""
    window = {"type": "attention", "num_heads": 2, "window_size": 8}
    source = model()
    edited = model(components=described()["components"] | {"attn": window})
    edited.load_weights(tree_flatten(source.parameters()))
    found = receipt(source, edited, TOKENS)
    by_place = {each.last: each.divergence for each in found.stretches}
    assert max(by_place[1], by_place[2], by_place[4], by_place[8]) < 1e-10
    assert by_place[16] > 1e-6
    assert found.parted == 0
    assert [each.changed for each in found.layers] == [True, False, False]
    assert found.layers[0].components == "attn, mlp"


def test_a_dropped_layer_is_set_beside_the_layers_that_stay() -> None:
    source, edited = model(), model(stack="a w")
    for mine, theirs in enumerate((0, 2)):
        edited.layers[mine].update(source.layers[theirs].parameters())
    for name in ("embedding", "norm", "head"):
        edited[name].update(source[name].parameters())
    found = receipt(source, edited, TOKENS, origins=[0, 2])
    assert [each.origin for each in found.layers] == [0, 2]
    assert found.layers[0].gap == 0
    assert (found.layers[1].gap or 0) > 1e-3
    assert not receipt(source, edited, TOKENS).layers  # without origins nobody knows what belongs together


def test_an_inserted_layer_that_adds_nothing_is_compared_with_what_went_in() -> None:
    source, edited = model(), model(stack="a a s w")
    for mine, theirs in enumerate((0, 0, 1, 2)):
        edited.layers[mine].update(source.layers[theirs].parameters())
    for name in ("embedding", "norm", "head"):
        edited[name].update(source[name].parameters())
    for use in edited.plan.layers[1].uses():
        module = edited.layers[1].module(use)
        if use.key in ("attn", "mlp"):
            module.update(tree_map(mx.zeros_like, module.parameters()))
    found = receipt(source, edited, TOKENS, origins=[0, None, 1, 2])
    assert found.exact
    assert [each.gap for each in found.layers] == [0, 0, 0, 0]
    assert [each.changed for each in found.layers] == [False, True, False, False]


def test_a_cut_vocabulary_is_compared_over_the_tokens_that_are_left() -> None:
    kept = np.array([5, 3, *range(10, 40)])
    source, edited = model(), model(dims={"hidden_size": 32, "vocab_size": len(kept)})
    for mine, theirs in zip(edited.layers, source.layers, strict=True):
        mine.update(theirs.parameters())
    edited.norm.update(source.norm.parameters())
    for name in ("embedding", "head"):
        edited[name].update(tree_map(lambda rows: rows[mx.array(kept)], source[name].parameters()))
    tokens = kept[np.random.default_rng(1).integers(0, len(kept), (2, 12))]
    found = receipt(source, edited, tokens, vocabulary=kept.tolist())
    assert found.most < 1e-12  # a product with fewer rows may be rounded otherwise
    assert found.agreement == 1
    assert found.source_perplexity == pytest.approx(perplexity(probabilities(source, tokens), tokens), rel=1e-5)
    own = np.argsort(kept)[np.searchsorted(kept[np.argsort(kept)], tokens)]
    assert found.perplexity == pytest.approx(perplexity(probabilities(edited, own), own), rel=1e-5)
    with pytest.raises(ValueError, match="say which of them are the same"):
        receipt(source, edited, tokens)
    with pytest.raises(ValueError, match="leave them out"):
        receipt(source, edited, np.zeros((1, 4), int), vocabulary=kept.tolist())


@pytest.mark.parametrize("by", [1e-3, 0.1, 3.0, 300.0])
def test_a_divergence_is_that_of_float64_near_and_far(by: float) -> None:
    random = np.random.default_rng(2)
    theirs, ours = random.normal(size=(2, 50, 32)) * 3
    ours = theirs + by * ours
    p, q = (each - each.max(-1, keepdims=True) for each in (theirs, ours))
    p, q = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (p, q))
    expected = (np.exp(p) * (p - q)).sum(-1)
    found = np.array(divergence(mx.array(theirs.astype(np.float32)), mx.array(ours.astype(np.float32))))
    assert (found >= 0).all()
    assert found == pytest.approx(expected, rel=2e-3)


def test_a_receipt_is_plain_data() -> None:
    found = receipt(model(), disturbed(), TOKENS, text="numbers")
    data = json.loads(json.dumps(found.to_dict()))
    assert data["tokens"] == 60
    assert data["text"] == "numbers"
    assert data["first_parted"] == 2
    assert [layer["index"] for layer in data["layers"]] == [0, 1, 2]


def test_a_broken_model_has_a_receipt_too() -> None:
    """Its figures are not numbers, and JSON has null for those."""
    broken = model()
    broken.layers[1].update(tree_map(lambda w: w * float("nan"), broken.layers[1].parameters()))
    found = receipt(model(), broken, TOKENS)
    assert np.isnan(found.divergence)
    assert found.parted == 1
    assert not found.exact
    assert "nan" in str(found)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["divergence"] is None
    assert data["layers"][0]["gap"] == 0


@pytest.mark.parametrize(
    ("tokens", "origins", "said"),
    [(np.zeros((2, 1), int), None, "at least 2"), (np.zeros((0, 4), int), None, "at least 2"),
     (TOKENS, [0], "1 origins for 3 layers")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tokens: np.ndarray, origins: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        receipt(model(), model(), tokens, origins=origins)
