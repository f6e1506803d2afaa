"""Keys and values that layers share: with a cache as without, and as a few lines of NumPy say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlx.core as mx
import models
import numpy as np
import pytest

import axon_compose
from axon_compose.model import needed_layers, run_alone
from axon_compose.proof.verify import layer_outputs

HIDDEN = 16


def one_head(source_window: int | None, reader_window: int | None) -> Any:
    """Two layers of one head without norms and positions, the second reads what the first one kept."""
    head = {"type": "attention", "num_heads": 1, "rope": None}
    source = head | ({"window_size": source_window} if source_window else {})
    reader = head | {"kv_from": "source"} | ({"window_size": reader_window} if reader_window else {})
    plain = {"norm": "none"}
    return axon_compose.load(
        {
            "version": 1,
            "name": "one-head",
            "dims": {"hidden_size": HIDDEN, "vocab_size": 97},
            "components": {"source": source, "reader": reader},
            "blocks": {"first": [{"use": "source", **plain}], "second": [{"use": "reader", **plain}]},
            "stack": "first second",
            "final_norm": "none",
        }
    ).build(seed=3)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int | None) -> np.ndarray:
    """Softmax attention of every token to the last `window` tokens, in float64."""
    scores = q @ k.T / np.sqrt(HIDDEN)
    back = np.arange(len(q))[:, None] - np.arange(len(q))[None]
    scores[(back < 0) | (back >= (window or len(q)))] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ v


def by_hand(model: Any, row: mx.array, windows: tuple[int | None, int | None]) -> np.ndarray:
    """The stack's output for one sequence, (L, D)."""
    weight = {name: np.array(value, dtype=np.float64).T for name, value in flat(model).items()}
    x = weight["embedding.embed_tokens.weight"].T[np.array(row[0])]
    first, second = "layers.0.source.", "layers.1.reader."
    k, v = x @ weight[f"{first}k_proj.weight"], x @ weight[f"{first}v_proj.weight"]
    q = x @ weight[f"{first}q_proj.weight"]
    x = x + attend(q, k, v, windows[0]) @ weight[f"{first}o_proj.weight"]
    q = x @ weight[f"{second}q_proj.weight"]
    return x + attend(q, k, v, windows[1]) @ weight[f"{second}o_proj.weight"]


def flat(model: Any) -> dict[str, mx.array]:
    from mlx.utils import tree_flatten

    return dict(tree_flatten(model.parameters()))


def fed(model: Any, row: mx.array, sizes: Iterable[int]) -> mx.array:
    cache, outputs, start = model.make_cache(), [], 0
    for size in sizes:
        outputs.append(model.hidden(row[:, start : start + size], cache))
        start += size
    return mx.concatenate(outputs, axis=1)


WINDOWS = [(None, None), (None, 4), (6, 6), (6, 4), (6, 1)]


@pytest.mark.parametrize("windows", WINDOWS)
def test_by_hand(windows: tuple[int | None, int | None]) -> None:
    model = one_head(*windows)
    row = models.tokens(1, 23)
    wanted = by_hand(model, row, windows)
    for sizes in ([23], [1] * 23, [4, 7, 1, 1, 10], [20, 1, 1, 1]):
        np.testing.assert_allclose(np.array(fed(model, row, sizes)[0]), wanted, atol=2e-6)
    np.testing.assert_allclose(np.array(model.hidden(row)[0]), wanted, atol=2e-6)


def test_reader_of_the_nearest_source() -> None:
    """Of two layers that use the component, the nearer one is read."""
    model = models.model("a a b", a=["attn"], b=["reader"])
    reader = next(use for use in model.plan.layers[2].uses() if use.name == "reader")
    assert reader.reads["kv"] == "1.attn.kv"
    row = models.tokens(1, 12)
    before = model(row)
    model.layers[1].attn.k_proj.weight = model.layers[1].attn.k_proj.weight * 2
    moved = mx.abs(model(row) - before).max().item()
    assert moved > 1e-3


def test_no_reader_no_publishing() -> None:
    """Nothing is handed on that nobody reads, so that nothing is kept alive."""
    model = models.model("a a b", a=["attn"], b=["reader"])
    writes = [[use.writes for use in layer.uses() if use.name == "attn"] for layer in model.plan.layers]
    assert writes == [[()], [("kv",)], []]


def test_reader_in_a_padded_batch() -> None:
    from axon_compose.proof.check._batches import with_left_padding

    model = models.model("a b c", a=["attn", "mlp"], b=["reader"], c=["near"])
    rows = [models.tokens(1, length, seed=length) for length in (13, 6, 1)]
    cache = [with_left_padding(leaf, [0, 7, 12]) for leaf in model.make_cache()]
    padded = mx.concatenate([mx.pad(row, [(0, 0), (13 - row.shape[1], 0)]) for row in rows])
    got = mx.concatenate(
        [model(padded[:, :5], cache), model(padded[:, 5:12], cache), model(padded[:, 12:], cache)], axis=1
    )
    for i, row in enumerate(rows):
        assert models.close(got[i, 13 - row.shape[1] :], model(row)[0])


def test_source_in_the_same_layer() -> None:
    """What a layer publishes is for later layers: within the same one, the layer before is read."""
    block = ["attn", "reader"]
    with pytest.raises(axon_compose.ArchitectureError, match="which no earlier layer uses"):
        models.model("a", a=block)
    model = models.model("s a", s=["attn"], a=block)
    reader = next(use for use in model.plan.layers[1].uses() if use.name == "reader")
    assert reader.reads["kv"] == "0.attn.kv"
    row = models.tokens(1, 9)
    assert models.close(fed(model, row, [4, 1, 1, 3]), model.hidden(row))


def test_layers_alone_read_what_others_publish() -> None:
    """For the inputs that they have in the model, they give what they give there."""
    model, tokens = one_head(None, 3), mx.array([[5, 1, 4, 1, 3], [2, 6, 5, 3, 5]])
    assert needed_layers(model, [0]) == [0]
    assert needed_layers(model, [1]) == [0, 1]
    with layer_outputs(model) as states:
        model(tokens)
    found = run_alone(model, tokens, dict(enumerate(states[:2])))
    assert list(found) == [0, 1]
    for layer, output in found.items():
        assert models.close(output, states[layer + 1])
