"""The attention layers with mlx-lm's caches: any way to cut a prompt, and any padding, gives the same outputs."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import BatchKVCache, BatchRotatingKVCache, KVCache, QuantizedKVCache, RotatingKVCache
from piecewise import in_pieces

from axon_compose.registry import Dims
from axon_core.attention import Attention
from axon_core.specs.attention import AttentionOptions, RopeOptions

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
LENGTH = 150
CUTS = {"one shot": [150], "chunks": [64, 64, 22], "odd chunks": [1, 2, 70, 1, 1, 75], "then steps": [97] + [1] * 53}
CUTS["steps"] = [1] * 150


def build(window=None, **fields):
    mx.random.seed(0)
    fields = {"num_heads": 4, "num_kv_heads": 2, "rope": RopeOptions(), "window_size": window} | fields
    layer = Attention.from_options(AttentionOptions(**fields), DIMS)
    mx.eval(layer.parameters())
    return layer


def inputs(length=LENGTH, batch=1, seed=1):
    return mx.random.normal((batch, length, 32), key=mx.random.key(seed))


def step(layer, x, cache, wired):
    """One call, as the model makes it (mask and offset handed in) or alone."""
    if not wired:
        return layer(x, cache=cache)[0]
    window, mask = layer.window_size, None
    if window is None or x.shape[1] == 1:
        mask = create_attention_mask(x, cache, window_size=window)
    return layer(x, mask, cache, offset=cache.offset)[0]


def run(layer, x, cache, cuts, wired=True):
    return in_pieces(lambda piece: step(layer, piece, cache, wired), x, cuts)


def close(got, want):
    np.testing.assert_allclose(np.array(got), np.array(want), atol=3e-6)


@pytest.mark.parametrize("wired", [True, False], ids=["wired", "alone"])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize(
    ("window", "ring"), [(None, False), *((w, ring) for w in (1, 8, 64, 65, 200) for ring in (True, False))]
)
def test_cached_equals_one_pass(window, ring, cuts, wired):
    layer, x = build(window), inputs()
    cache = RotatingKVCache(window) if ring else KVCache()
    close(run(layer, x, cache, cuts, wired), layer(x)[0])


@pytest.mark.parametrize("cuts", [[150], [90, 60], [90, 1, 59]], ids=str)
def test_a_ring_larger_than_the_window(cuts):
    layer, x = build(8), inputs()
    close(run(layer, x, RotatingKVCache(20), cuts), layer(x)[0])


def test_a_prompt_longer_than_the_window_is_finite():
    """A cache cut to the window before attention leaves early queries without any key."""
    layer, x = build(32), inputs(100)
    y = run(layer, x, RotatingKVCache(32), [100])
    assert mx.isfinite(y).all()
    close(y, layer(x)[0])


def test_keeps_going_after_a_rewind():
    layer, x = build(64), inputs()
    cache = RotatingKVCache(64)
    run(layer, x[:, :50], cache, [50])
    run(layer, inputs(10, seed=5), cache, [4, 1, 1, 1, 1, 1, 1])
    cache.trim(10)
    close(run(layer, x[:, 50:], cache, [60, 1, 39]), layer(x)[0][:, 50:])


ROWS = [90, 3, 41, 89]  # lengths of the prompts of a batch
MORE = 20  # steps after them


def alone(layer, rows):
    return [layer(row[None])[0][0] for row in rows]


def batch_cache(window, padding):
    return BatchKVCache(padding) if window is None else BatchRotatingKVCache(window, padding)


def prompts():
    return [inputs(length + MORE, seed=10 + length)[0] for length in ROWS]


@pytest.mark.parametrize("cuts", [[90], [64, 26], [30, 1, 1, 58], [9] * 10], ids=str)
@pytest.mark.parametrize("window", [None, 1, 8, 64, 200])
def test_rows_padded_left_equal_single_runs(window, cuts):
    layer, rows = build(window), prompts()
    padding = [90 - length for length in ROWS]
    x = mx.stack([mx.pad(row, ((pad, 0), (0, 0))) for row, pad in zip(rows, padding, strict=True)])
    y = run(layer, x, batch_cache(window, padding), cuts + [1] * (MORE - 5) + [5])
    assert mx.isfinite(y).all()
    for row, pad, want in zip(y, padding, alone(layer, rows), strict=True):
        close(row[pad:], want)


@pytest.mark.parametrize("cuts", [[90], [64, 26], [30, 30, 30], [9] * 10], ids=str)
@pytest.mark.parametrize("window", [None, 2, 8, 64, 200])
def test_rows_padded_right_equal_single_runs(window, cuts):
    layer, rows = build(window), prompts()
    cache = batch_cache(window, [0] * 4)
    cache.prepare(lengths=ROWS, right_padding=[90 - length for length in ROWS])
    x = mx.stack([mx.pad(row[:n], ((0, 90 - n), (0, 0))) for row, n in zip(rows, ROWS, strict=True)])
    first = run(layer, x, cache, cuts)
    cache.finalize()
    more = mx.stack([row[n:] for row, n in zip(rows, ROWS, strict=True)])
    second = run(layer, more, cache, [1, 1, 7] + [1] * (MORE - 9))
    assert mx.isfinite(first).all()
    for i, (n, want) in enumerate(zip(ROWS, alone(layer, rows), strict=True)):
        close(first[i, :n], want[:n])
        close(second[i], want[n:])


@pytest.mark.parametrize("window", [None, 8])
def test_merged_batches_go_on(window):
    """Prompts read one by one, then decoded together, as the server does."""
    layer, rows = build(window), prompts()
    caches = []
    for row, n in zip(rows, ROWS, strict=True):
        caches.append(KVCache() if window is None else RotatingKVCache(window))
        run(layer, row[None, :n], caches[-1], [n])
    merged = type(caches[0]).merge(caches)
    more = mx.stack([row[n:] for row, n in zip(rows, ROWS, strict=True)])
    y = run(layer, more, merged, [1, 1, 3] + [1] * (MORE - 5))
    for i, (n, want) in enumerate(zip(ROWS, alone(layer, rows), strict=True)):
        close(y[i], want[n:])


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("heads", [1, 2], ids=["shared", "own"])
def test_quantised_keys_and_values(bits, heads):
    """Equal to attention over the keys and values that the quantised cache really holds."""
    layer, x = build(head_dim=64, num_heads=2, num_kv_heads=heads), inputs(80)
    cache = QuantizedKVCache(group_size=32, bits=bits)
    y = run(layer, x, cache, [50, 1, 1, 28])

    keys, values = (mx.dequantize(*held, group_size=32, bits=bits) for held in cache.keys_and_values())
    queries = layer.rope(layer.q_proj(x).reshape(1, 80, 2, 64).transpose(0, 2, 1, 3))
    want = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=layer.scale, mask="causal")
    close(y, layer.o_proj(want.transpose(0, 2, 1, 3).flatten(2)))


def test_a_saved_cache_goes_on():
    layer, x = build(8), inputs()
    cache = RotatingKVCache(8)
    run(layer, x[:, :100], cache, [97, 1, 1, 1])
    state = tree_map(lambda a: mx.array(np.array(a)) if isinstance(a, mx.array) else a, cache.state)
    again = RotatingKVCache.from_state(state)
    close(run(layer, x[:, 100:], again, [1, 30, 19]), layer(x)[0][:, 100:])
