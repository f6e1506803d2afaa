"""Attention with its norm and sum in few operations: what its steps give, or left to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.cache import (
    BatchKVCache,
    BatchRotatingKVCache,
    ConcatenateKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)
from mlx_lm.tuner.lora import LoRALinear
from stored_layers import drawn
from whole_layers import HEADS, TOKENS, WIDTH, agree, attention, decoded, doubled, types, varied

from axon_compose.registry import Shard
from axon_core.attention import Attention
from axon_core.cpu import reference_implementations
from axon_core.few_tokens import added
from axon_core.norms import HeadNorm, RMSNorm
from axon_core.rope import RoPE
from axon_core.specs._heads import (
    ALiBiOptions,
    BiasOptions,
    HeadNormOptions,
    RelativeOptions,
    TemperatureOptions,
    VNormOptions,
)
from axon_core.specs._indexer import BlockIndexerOptions
from axon_core.specs._rope import RopeOptions

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]


#: Options that are known to the operation.
KNOWN: dict[str, dict[str, Any]] = {
    "none": {},
    "shared keys": {"num_heads": 8, "num_kv_heads": 2},
    "values of another width": {"v_head_dim": 12, "head_dim": 20},
    "biases": {"bias": True},
    "some biases": {"bias": BiasOptions(k=True, o=True)},
    "sinks": {"sinks": True},
    "a scale": {"scale": 0.5},
    "rope": {"rope": RopeOptions()},
    "rope of neighbours": {"rope": RopeOptions(traditional=True, fraction=0.5)},
    "norms": {"qk_norm": HeadNormOptions(eps=1e-3), "rope": RopeOptions()},
    "norms with an offset": {"qk_norm": HeadNormOptions(offset=1.0), "num_heads": 4, "num_kv_heads": 2},
    "norms without weights": {"qk_norm": HeadNormOptions(weight=False)},
}
#: Options that are not.
UNKNOWN: dict[str, dict[str, Any]] = {
    "softcap": {"softcap": 1.0},
    "alibi": {"alibi": ALiBiOptions()},
    "relative": {"relative": RelativeOptions(rank=3, extent=5)},
    "gate": {"gate": "elementwise"},
    "gate of heads": {"gate": "head", "gate_activation": "softplus"},
    "output_norm": {"output_norm": VNormOptions()},
    "chunk_size": {"chunk_size": 4},
    "temperature": {"temperature": TemperatureOptions(scale=0.5, length=3)},
    "norms after rope": {"qk_norm": HeadNormOptions(when="after_rope"), "rope": RopeOptions()},
    "k_norm_scale": {"qk_norm": HeadNormOptions(), "k_norm_scale": "queries"},
    "norms over all heads": {"qk_norm": HeadNormOptions(over="all")},
    "a norm for each head": {"qk_norm": HeadNormOptions(per_head=True)},
    "layer norms": {"qk_norm": HeadNormOptions(type="layer_norm")},
    "layer norms with a bias": {"qk_norm": HeadNormOptions(type="layer_norm", bias=True)},
    "v_norm": {"v_norm": VNormOptions()},
    "k_eq_v": {"k_eq_v": True},
    "clip": {"clip": 0.5},
    "input_scale": {"input_scale": 2.0},
    "key_scale": {"key_scale": 2.0},
    "value_scale": {"value_scale": 2.0},
    "head_gain": {"head_gain": True},
    "log_scaling": {"log_scaling": True},
}


@types
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("cache", [KVCache, lambda: RotatingKVCache(5), lambda: RotatingKVCache(7, keep=2)])
def test_attention(name: str, cache: Callable[[], Any], dtype: mx.Dtype, whole: list[str]) -> None:
    layer = attention(**KNOWN[name])
    layer.set_dtype(dtype)
    assert agree(layer, cache, dtype)
    assert whole == ["native_attended"] * 2 * TOKENS


@types
@pytest.mark.parametrize("name", UNKNOWN)
def test_attention_that_does_more(name: str, dtype: mx.Dtype, whole: list[str]) -> None:
    layer = attention(**UNKNOWN[name])
    layer.set_dtype(dtype)
    assert agree(layer, KVCache, dtype)
    assert agree(layer, lambda: RotatingKVCache(20), dtype)
    assert whole == []


def test_every_option_is_asked_about() -> None:
    """What one of `Attention` has been added is either known to the operation or left to steps."""
    from inspect import signature

    tested = {name for each in (*KNOWN.values(), *UNKNOWN.values()) for name in each} | {"window_size", "indexer"}
    more = {"self", "hidden_dim", "num_heads", "kv_from", "shard"}
    assert set(signature(Attention.__init__).parameters) - more <= tested | {"num_kv_heads"}


@pytest.mark.parametrize("window", [1, 4, 8])
@pytest.mark.parametrize("room", [None, 4, 8])
def test_attention_with_a_window(window: int, room: int | None, whole: list[str]) -> None:
    """In one operation as long as all that is kept is seen."""
    layer = attention(window_size=window, rope=RopeOptions(), sinks=True)
    assert agree(layer, KVCache if room is None else lambda: RotatingKVCache(room))
    seen = TOKENS if room is not None and room <= window else window
    assert len(whole) == 2 * seen


def test_attention_with_an_indexer(whole: list[str]) -> None:
    from mlx_lm.models.cache import CacheList

    layer = attention(indexer=BlockIndexerOptions(num_heads=2, head_dim=8, block_size=2, top_k=2))
    assert agree(layer, lambda: CacheList(KVCache(), KVCache()))
    assert whole == []


class Own(KVCache):
    """A class that may do anything."""


OTHERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "quantised": lambda: QuantizedKVCache(32, 8),
    "concatenated": ConcatenateKVCache,
    "a batch with padding": lambda: BatchKVCache([0, 3]),
    "a batch of windows": lambda: BatchRotatingKVCache(5, [0, 3]),
    "a class of its own": Own,
}


@pytest.mark.parametrize("name", OTHERS)
def test_attention_with_other_caches(name: str, whole: list[str]) -> None:
    assert agree(attention(rope=RopeOptions(), bias=True), OTHERS[name])
    assert whole == []


def test_attention_with_a_mask(whole: list[str]) -> None:
    """An array is taken as it is, also in a tuple; the name of the causal one says nothing of one token."""
    layer = attention()
    first = mx.array([True])
    for mask in (first, (first,)):
        cache = KVCache()
        cache.update_and_fetch(drawn(2, HEADS, 3, 32), drawn(2, HEADS, 3, 32, seed=1))
        seen = mx.array([True, False, True, True])
        given = seen if isinstance(mask, mx.array) else (seen,)
        y = layer(drawn(2, 1, WIDTH), given, cache)[0]
        cache.trim(1)
        with reference_implementations():
            truth = layer(drawn(2, 1, WIDTH), given, cache)[0]
        assert mx.allclose(y, truth, atol=1e-5)
    assert whole == []
    assert agree(layer, KVCache, mask="causal")
    assert whole


def test_attention_of_published_keys(whole: list[str]) -> None:
    layer, other = attention(), attention()
    x, held = drawn(2, 1, WIDTH), {}
    y = layer(x, cache=KVCache(), publish=held.__setitem__)[0]
    assert mx.allclose(layer(x, kv=held["kv"])[0], y, atol=1e-6)
    assert other.residual(None, x, cache=KVCache(), kv=held["kv"]) is None
    assert whole == []


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj", "o_proj"])
@pytest.mark.parametrize("how", ["adapter", "bfloat16", "mxfp8", "bias"])
def test_attention_one_of_whose_layers_is_of_another_kind(name: str, how: str) -> None:
    """Also the last one alone, of which nothing is known before keys are kept."""
    layer = attention(rope=RopeOptions())
    if how == "adapter":
        layer[name] = LoRALinear.from_base(layer[name])
        layer[name].lora_b = drawn(*layer[name].lora_b.shape)
    elif how == "mxfp8":
        nn.quantize(layer, 32, 8, mode="mxfp8", class_predicate=lambda path, _: path == name)
    elif how == "bias":
        layer[name].bias = drawn(1, WIDTH)  # which kernels do not read
    else:
        layer[name].set_dtype(getattr(mx, how))
    assert agree(layer, KVCache)


def test_a_projection_of_32_bits_after_heads_of_16() -> None:
    """Its steps give 32 bits, and so does the sum."""
    layer = attention(rope=RopeOptions())
    layer.set_dtype(mx.bfloat16)
    layer.o_proj.set_dtype(mx.float32)
    x, cache, other = drawn(2, 1, WIDTH).astype(mx.bfloat16), KVCache(), KVCache()
    y = added(layer, varied(RMSNorm(WIDTH), mx.bfloat16), x, Shard(), cache=cache)[0]
    with reference_implementations():
        truth = added(layer, varied(RMSNorm(WIDTH), mx.bfloat16), x, Shard(), cache=other)[0]
    assert y.dtype == truth.dtype
    assert mx.abs(y - truth).max() <= 4 * 2.0**-8 * mx.abs(truth).max()
    assert cache.offset == other.offset == 1


METHODS = ["_projected", "_heads", "_by_head", "_turned", "_queries", "_keys_values", "_kept"]
LAST = ["__call__", "_default_mask", "_with_earlier", "_output", "_attend"]


@pytest.mark.parametrize("name", [*METHODS[:1], *METHODS[3:], *LAST])
def test_attention_with_steps_of_its_own(name: str, whole: list[str]) -> None:
    layer = varied(doubled(Attention, name)(WIDTH, HEADS, rope=RopeOptions()))
    assert agree(layer, KVCache)
    assert whole == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("softcap", 0.5),
        ("chunk_size", 3),
        ("_slopes", mx.ones(HEADS)),
        ("input_scale", 2.0),
        ("clip", 0.1),
        ("window_size", 3),
        ("temperature", TemperatureOptions(scale=0.5, length=3)),
        ("norm_after_rope", True),
        ("g_proj", nn.Linear(WIDTH, WIDTH)),
        ("output_norm", RMSNorm(32)),
        ("q_norm", nn.RMSNorm(32)),
        ("k_norm", doubled(HeadNorm, "__call__")(HEADS, 32, HeadNormOptions())),
        ("rope", doubled(RoPE, "__call__")(32, RopeOptions())),
        ("scale", 2.0),
        ("sinks", mx.array([1.0, 3.0])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_attention_that_was_changed(name: str, value: Any) -> None:
    layer = attention(rope=RopeOptions(), qk_norm=HeadNormOptions(), sinks=True)
    before = decoded(layer, None, KVCache(), mx.float32)
    setattr(layer, name, value)
    assert agree(layer, KVCache)
    assert not mx.allclose(decoded(layer, None, KVCache(), mx.float32), before, atol=1e-4)
