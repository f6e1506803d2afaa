"""Latent attention with mlx-lm's caches: any way to cut a prompt, and any padding, gives the same outputs."""

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import BatchKVCache, KVCache, QuantizedKVCache, load_prompt_cache, save_prompt_cache
from mlx_lm.models.deepseek_v3 import DeepseekV3Attention, ModelArgs
from piecewise import in_pieces

from axon_compose.registry import KV, Dims
from axon_core import window
from axon_core.latent_attention import LatentAttention
from axon_core.specs.latent_attention import SPECS, LatentAttentionOptions

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
LENGTH = 90
CUTS = {"one shot": [90], "chunks": [40, 40, 10], "odd chunks": [1, 2, 50, 1, 1, 35], "then steps": [57] + [1] * 33}
CUTS["steps"] = [1] * 90
SMALL = {"num_heads": 3, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}


def build(**fields):
    mx.random.seed(0)
    layer = LatentAttention.from_options(LatentAttentionOptions.model_validate(SMALL | fields), DIMS)
    layer.update(tree_map(lambda a: 3 * a, layer.parameters()))  # scores that differ
    mx.eval(layer.parameters())
    return layer


def inputs(length=LENGTH, batch=1, seed=1):
    return mx.random.normal((batch, length, 32), key=mx.random.key(seed))


@pytest.fixture(autouse=True, params=["chosen", "absorbed", "expanded"])
def form(request, monkeypatch):
    """The layer's own choice for every call, and both forms forced; in blocks of seven queries."""
    monkeypatch.setattr(window, "_SCORES", 0)
    monkeypatch.setattr(window, "_LEAST_ROWS", 7)
    if request.param != "chosen":
        monkeypatch.setattr(LatentAttention, "_absorbs", lambda *_: request.param == "absorbed")
    return request.param


def run(layer, x, cache, cuts, wired=True):
    """Pieces of a sequence, with mask and offset handed in as the model does, or alone."""

    def step(piece):
        if not wired:
            return layer(piece, cache=cache)[0]
        offset = mx.array(cache.offset) if isinstance(cache.offset, mx.array) else cache.offset
        return layer(piece, create_attention_mask(piece, cache), cache, offset=offset)[0]

    return in_pieces(step, x, cuts)


def close(got, want, limit=1e-5):
    got, want = np.array(got), np.array(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= limit * np.abs(want).max()


@pytest.mark.parametrize("wired", [True, False], ids=["wired", "alone"])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS.keys())
def test_cached_equals_one_pass(cuts, wired):
    layer, x = build(), inputs(batch=2)
    cache = KVCache()
    close(run(layer, x, cache, cuts, wired), layer(x)[0])
    assert (cache.offset, cache.keys.shape[-1], cache.values.shape[-1]) == (LENGTH, 20, 8)


@pytest.mark.parametrize("cuts", [[90], [60] + [1] * 30], ids=str)
def test_equals_the_cached_module_of_mlx_lm(cuts):
    layer, x = build(q_lora_rank=16), inputs()
    args = {"num_attention_heads": 3, "hidden_size": 32, "q_lora_rank": 16, **SMALL}
    theirs, cache = DeepseekV3Attention(ModelArgs.from_dict(args)), KVCache()
    theirs.update(layer.parameters())
    want, at = [], 0
    for length in cuts:
        piece = x[:, at : at + length]
        want.append(theirs(piece, create_attention_mask(piece, cache, return_array=True), cache))
        at += length
    close(run(layer, x, KVCache(), cuts), mx.concatenate(want, axis=1))


def test_the_offset_that_is_handed_in_counts():
    layer, x = build(), inputs(20)
    far = np.array(layer(x, offset=1000)[0])
    close(far, layer(x)[0], 1e-4)  # rotations are relative; angles of thousands have fewer digits
    moved = layer(x[:, 10:], cache=filled(layer, x[:, :10]), offset=30)[0]
    assert np.abs(np.array(moved) - far[:, 10:]).max() > 1e-2


def filled(layer, x):
    cache = KVCache()
    layer(x, cache=cache)
    return cache


def test_keeps_going_after_a_rewind():
    layer, x, cache = build(), inputs(), KVCache()
    run(layer, x[:, :50], cache, [50])
    run(layer, inputs(10, seed=5), cache, [4, 1, 5])
    cache.trim(10)
    close(run(layer, x[:, 50:], cache, [5, 1, 34]), layer(x)[0][:, 50:])


def test_a_saved_cache_goes_on(tmp_path):
    layer, x, cache = build(), inputs(), KVCache()
    run(layer, x[:, :60], cache, [58, 1, 1])
    save_prompt_cache(str(tmp_path / "cache.safetensors"), [cache])
    (again,) = load_prompt_cache(str(tmp_path / "cache.safetensors"))
    close(run(layer, x[:, 60:], again, [1, 20, 9]), layer(x)[0][:, 60:])


ROWS = [60, 3, 31, 59]  # lengths of the prompts of a batch
MORE = 12  # tokens after them


def prompts():
    return [inputs(length + MORE, seed=10 + length)[0] for length in ROWS]


def alone(layer, rows):
    return [layer(row[None])[0][0] for row in rows]


@pytest.mark.parametrize("cuts", [[60], [34, 26], [20, 1, 1, 38], [6] * 10], ids=str)
@pytest.mark.parametrize("wired", [True, False], ids=["wired", "alone"])
def test_rows_padded_left_equal_single_runs(cuts, wired):
    layer, rows = build(), prompts()
    padding = [60 - length for length in ROWS]
    x = mx.stack([mx.pad(row, ((pad, 0), (0, 0)), constant_values=5.0) for row, pad in zip(rows, padding, strict=True)])
    y = run(layer, x, BatchKVCache(padding), cuts + [1] * (MORE - 5) + [5], wired)
    assert mx.isfinite(y).all()
    for row, pad, want in zip(y, padding, alone(layer, rows), strict=True):
        close(row[pad:], want)


@pytest.mark.parametrize("cuts", [[60], [34, 26], [6] * 10], ids=str)
def test_rows_padded_right_equal_single_runs(cuts):
    layer, rows = build(), prompts()
    cache = BatchKVCache([0] * 4)
    cache.prepare(lengths=ROWS, right_padding=[60 - length for length in ROWS])
    x = mx.stack(
        [mx.pad(row[:n], ((0, 60 - n), (0, 0)), constant_values=5.0) for row, n in zip(rows, ROWS, strict=True)]
    )
    first = run(layer, x, cache, cuts)
    cache.finalize()
    second = run(layer, mx.stack([row[n:] for row, n in zip(rows, ROWS, strict=True)]), cache, [1, 1, 5, 1, 4])
    assert mx.isfinite(first).all()
    for i, (n, want) in enumerate(zip(ROWS, alone(layer, rows), strict=True)):
        close(first[i, :n], want[:n])
        close(second[i], want[n:])


def test_merged_batches_go_on_and_are_taken_apart():
    """Prompts read one by one, then decoded together, as the server does; then one of them goes on alone."""
    layer, rows = build(), prompts()
    merged = KVCache.merge([filled(layer, row[None, :n]) for row, n in zip(rows, ROWS, strict=True)])
    merged.filter(mx.array([2, 0]))
    chosen = [(rows[i], ROWS[i], alone(layer, rows)[i]) for i in (2, 0)]
    y = run(layer, mx.stack([row[n : n + 6] for row, n, _ in chosen]), merged, [1, 1, 3, 1])
    for i, (row, n, want) in enumerate(chosen):
        close(y[i], want[n : n + 6])
        close(run(layer, row[None, n + 6 :], merged.extract(i), [1, 5])[0], want[n + 6 :])


WIDE = {"num_heads": 2, "kv_lora_rank": 64, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 16}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("cuts", [[60], [50, 1, 1, 8]], ids=str)
def test_a_quantised_cache(bits, cuts):
    """Equal to attention to the latents and rotated keys that the cache really holds."""
    layer, x = build(**WIDE), inputs(60)
    cache = QuantizedKVCache(group_size=32, bits=bits)
    y = run(layer, x, cache, cuts)
    latent, k_pe = (mx.dequantize(*held, group_size=32, bits=bits) for held in cache.keys_and_values())
    assert mx.abs(latent - layer._latent(x, 0)[0]).max() > 1e-3  # something was lost, so the test tells them apart

    class Held:
        offset = 0

        def update_and_fetch(self, *_):
            return latent, k_pe

    close(y, layer(x, cache=Held())[0])


def test_a_quantised_cache_that_does_not_fit_is_refused_by_mlx():
    layer = build()
    with pytest.raises(ValueError, match="group size"):
        layer(inputs(4), cache=QuantizedKVCache(group_size=32, bits=8))


def test_what_is_held_is_what_the_record_says():
    options = LatentAttentionOptions.model_validate(SMALL)
    layer, cache = build(), KVCache()
    layer.set_dtype(mx.bfloat16)
    layer(inputs(256).astype(mx.bfloat16), cache=cache)
    spec = SPECS[0].cache(options, DIMS)
    assert spec == KV(1, 20, 8)
    assert cache.nbytes == spec.nbytes(256)
