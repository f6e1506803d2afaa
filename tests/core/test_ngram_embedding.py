"""Groups of tokens in hashed tables."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import longcat_flash_ngram

from axon_compose import load
from axon_compose.registry import Dims
from axon_core.ngram_embedding import NGramEmbedding
from axon_core.specs.ngram_embedding import NGramEmbeddingOptions

VOCABULARY = 50_000
DIMS = Dims({"hidden_size": 32, "vocab_size": VOCABULARY})


def build(**fields):
    mx.random.seed(0)
    layer = NGramEmbedding.from_options(NGramEmbeddingOptions(rows=100_003, **fields), DIMS)
    mx.eval(layer.parameters())
    return layer


def drawn(batch, length):
    return mx.random.randint(0, VOCABULARY, (batch, length), key=mx.random.key(length))


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_equals_the_embedding_of_mlx_lm(length):
    args = {"hidden_size": 32, "vocab_size": VOCABULARY, "ngram_vocab_size_ratio": 2}
    args |= {"emb_neighbor_num": 4, "emb_split_num": 2}
    fields = dict.fromkeys(longcat_flash_ngram.ModelArgs.__annotations__, 1)
    theirs = longcat_flash_ngram.NgramEmbedding(longcat_flash_ngram.ModelArgs(**fields | args))
    ours = NGramEmbedding.from_options(NGramEmbeddingOptions(rows=100_000, longest=4, tables=2), DIMS)
    named = tree_flatten(theirs.parameters())
    ours.load_weights([(name, value) for name, value in named if "word_embeddings" not in name], strict=True)
    tokens = drawn(2, length)
    got, _ = ours(theirs.word_embeddings(tokens), tokens=tokens)
    assert mx.abs(got - theirs(tokens)).max().item() < 1e-6


def test_padding_is_no_token():
    """mlx-lm's own code takes padding for tokens."""
    layer, tokens = build(), drawn(1, 6)
    x = mx.random.normal((1, 6, 32))
    alone, _ = layer(x, tokens=tokens)
    padded = mx.concatenate([mx.full((1, 3), 7), tokens], axis=1)
    mask = mx.arange(9)[None] >= 3
    got, _ = layer(mx.concatenate([x[:, :3], x], axis=1), mask, tokens=padded)
    assert mx.abs(got[:, 3:] - alone).max().item() < 1e-6


def test_tokens_come_beside_per_layer_inputs():
    data = {
        "version": 1,
        "name": "both",
        "dims": {"hidden_size": 32, "vocab_size": 60},
        "components": {
            "groups": {"type": "ngram_embedding", "rows": 31, "longest": 2, "tables": 2},
            "attn": {"type": "attention", "num_heads": 2},
            "token": {"type": "per_layer_input", "size": 8, "index": "=i"},
        },
        "blocks": {"first": ["groups", "attn", "token"], "later": ["attn", "token"]},
        "stack": "first later",
        "embedding": {"per_layer": {"size": 8, "layers": 2}},
    }
    model = load(data).build()
    tokens = drawn(2, 12) % 60
    cache = model.make_cache()
    steps = mx.concatenate([model(tokens[:, i : i + 1], cache) for i in range(12)], axis=1)
    assert mx.abs(steps - model(tokens)).max().item() < 1e-4


def test_no_group_reaches_over_the_end_of_a_text():
    """Hashes as the authors' code defines them: what is before the last end counts as none."""
    layer, x = build(longest=3, tables=2, eos=2), mx.zeros((1, 4, 32))
    texts = [mx.array([[5, 2, 7, 8]]), mx.array([[9, 2, 7, 8]])]
    first, second = (layer(x, tokens=text)[0] for text in texts)
    assert mx.abs(first[:, 2:] - second[:, 2:]).max().item() == 0
    assert mx.abs(first[:, :2] - second[:, :2]).max().item() > 0
    alone, _ = layer(x[:, :2], tokens=mx.array([[7, 8]]))
    assert mx.abs(first[:, 2:] - alone).max().item() < 1e-6
    over = build(longest=3, tables=2)
    assert mx.abs(over(x, tokens=texts[0])[0][:, 2] - over(x, tokens=texts[1])[0][:, 2]).max().item() > 0
