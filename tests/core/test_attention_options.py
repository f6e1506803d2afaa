"""What single families add to attention: capped scores, scores by distance, sinks, gates, and norms of every kind."""

import attention_reference as reference
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models import afmoe, cohere, gemma2, gpt_oss, ministral3, olmo2
from mlx_lm.models.base import create_attention_mask
from mlx_lm.models.cache import BatchKVCache, BatchRotatingKVCache, KVCache, QuantizedKVCache, RotatingKVCache
from pydantic import ValidationError

from axon_compose.registry import Dims
from axon_core.attention import Attention
from axon_core.specs.attention import AttentionOptions, TemperatureOptions
from axon_core.temperature import query_gain

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
MOVED = ("sinks", "head_gain", "log_scaling", "profiles")
PERIODS = [10000.0 ** (i / 4) for i in range(4)]


def build(hidden=32, **fields):
    mx.random.seed(0)
    options = AttentionOptions.model_validate({"num_heads": 4, **fields})
    layer = Attention.from_options(options, Dims({"hidden_size": hidden, "vocab_size": 8}))
    # Norms start at one and sinks at zero, queries and keys small: moved, so that every part counts.
    moved = {name: mx.random.uniform(0.5, 2, a.shape) for name, a in weights_of(layer) if "norm" in name}
    moved |= {name: mx.random.normal(a.shape) for name, a in weights_of(layer) if name.startswith(MOVED)}
    moved |= {name: 3 * a for name, a in weights_of(layer) if name in ("q_proj.weight", "k_proj.weight")}
    layer.load_weights(list(moved.items()), strict=False)
    mx.eval(layer.parameters())
    return layer


def weights_of(layer):
    return tree_flatten(layer.parameters())


def inputs(length, batch=1, seed=1, width=32):
    return mx.random.normal((batch, length, width), key=mx.random.key(seed))


def norm(z, eps, kind="rms_norm"):
    z = z - z.mean(-1, keepdims=True) if kind == "layer_norm" else z
    return z / np.sqrt((z**2).mean(-1, keepdims=True) + eps)


def definition(layer, x, fields, first=0):
    """The layer on `x` (L, D) in float64, from its options as they are written; tokens before `first` are padding."""
    weights = {name: np.array(array, dtype=np.float64) for name, array in weights_of(layer)}
    qk, clip = dict(fields.get("qk_norm") or {}), fields.get("clip", np.inf)
    eps, over, when = qk.get("eps", 1e-6), qk.get("over", "head"), qk.get("when", "before_rope")

    def heads(name, count):
        source = "k" if name == "v" and fields.get("k_eq_v") else name
        z = x @ weights[f"{source}_proj.weight"].T + weights.get(f"{source}_proj.bias", 0)  # (L, heads * d)
        z = np.clip(z * (fields.get("key_scale", 1) if source == "k" else 1), -clip, clip)
        split = z.reshape(len(x), count, -1)
        scale = weights.get(f"{name}_norm.weight", 1.0) + qk.get("offset", 0.0)
        shift = weights.get(f"{name}_norm.bias", 0.0)
        if name == "v":
            split = split * fields.get("value_scale", 1)
            return (norm(split, fields["v_norm"]["eps"]) if "v_norm" in fields else split).transpose(1, 0, 2)
        if qk and over == "all":
            split = (norm(z, eps, qk.get("type")) * scale).reshape(split.shape)
        elif qk and when == "before_rope":
            split = norm(split, eps, qk.get("type")) * scale + shift
        turned = split.transpose(1, 0, 2)
        if fields.get("rope", True):
            sign = -1 if (fields.get("rope") or {}).get("reverse") else 1
            turned = reference.rotate(turned, [sign * period for period in PERIODS], np.arange(len(x)) - first)
        if when == "after_rope":
            turned = norm(turned, eps, qk.get("type")) * (scale[:, None] if scale.ndim == 2 else scale)
        return turned

    x = x * fields.get("input_scale", 1)
    positions = np.maximum(np.arange(len(x)) - first, 0)
    queries, keys, values = (heads(n, layer.num_heads if n == "q" else layer.num_kv_heads) for n in "qkv")
    if "head_gain" in weights:
        queries = queries * weights["head_gain"][:, None, None]
    gain = np.ones(len(x))
    if "temperature" in fields:
        warm = fields["temperature"]
        steps = (positions + warm.get("shift", 0)) / warm["length"]
        gain = 1 + warm["scale"] * np.log(np.maximum(steps, 1) if warm.get("smooth") else 1 + np.floor(steps))
    if "log_scaling" in fields:
        scale, bias = (weights[f"log_scaling.{name}"][:, None, None] for name in ("scale", "bias"))
        queries = queries * (scale * np.log(positions + 1)[:, None] + bias)
    by_distance = relative(weights, x, gain) if "relative" in fields else alibi(fields)
    y = softmax(queries * gain[:, None], keys, values, layer.scale, fields.get("window_size"), fields.get("softcap"),
                weights.get("sinks"), first, fields.get("chunk_size"),
                by_distance)  # fmt: skip
    if "output_norm" in fields:
        y = norm(y, fields["output_norm"]["eps"])
    if "gate" in fields:
        gate = x @ weights["g_proj.weight"].T + weights.get("g_proj.bias", 0)
        gate = np.log1p(np.exp(gate)) if "gate_activation" in fields else 1 / (1 + np.exp(-gate))
        y = y * gate.reshape(len(x), layer.num_heads, -1)
    return y.reshape(len(x), -1) @ weights["o_proj.weight"].T + weights.get("o_proj.bias", 0)


def alibi(fields):
    """What a head's query adds to scores of keys that are so far back: the slopes of four heads."""
    if not fields.get("alibi"):
        return lambda head, query, back: 0.0
    scale = 1.0 if fields["alibi"] is True else fields["alibi"]["scale"]
    return lambda head, query, back: -scale * 2.0 ** -(2 * (head + 1)) * back


def relative(weights, x, gain):
    """The same by profiles that it mixes."""
    profiles = weights["profiles"]
    mixtures = (x @ weights["r_proj.weight"].T).reshape(len(x), 4, len(profiles)) * gain[:, None, None]
    extent = profiles.shape[1]

    def added(head, query, back):
        scores = [mixtures[query, head] @ profiles[:, each] if each < extent else 0.0 for each in back]
        return np.array(scores)

    return added


def softmax(queries, keys, values, scale, window, cap, sinks, first, chunk, by_distance):
    heads, length, _ = queries.shape
    out = np.zeros((length, heads, values.shape[-1]))
    for h in range(heads):
        g = h // (heads // len(keys))
        for i in range(first, length):
            low = max(first, 0 if window is None else i - window + 1)
            low = low if chunk is None else i - (i - first) % chunk
            scores = keys[g, low : i + 1] @ queries[h, i] * scale
            scores = scores if cap is None else cap * np.tanh(scores / cap)
            scores = scores + by_distance(h, i, np.arange(i - low, -1, -1))
            sink = 0.0 if sinks is None else np.exp(sinks[h])
            weights = np.exp(scores)
            out[i, h] = weights @ values[g, low : i + 1] / (weights.sum() + sink)
    return out


CASES = {
    "softcap": {"softcap": 0.7, "num_kv_heads": 2},
    "softcap, window": {"softcap": 0.7, "num_kv_heads": 2, "window_size": 70},
    "sinks": {"sinks": True},
    "alibi": {"alibi": True, "rope": False, "num_kv_heads": 2},
    "alibi, softcap": {"alibi": {"scale": 0.5}, "softcap": 0.7},
    "relative": {"relative": {"rank": 3, "extent": 20}, "rope": False, "num_kv_heads": 2},
    "relative, as far as the window": {"relative": {"rank": 2, "extent": 9}, "window_size": 9},
    "relative, farther, sinks": {"relative": {"rank": 3, "extent": 90}, "window_size": 70, "sinks": True},
    "relative, temperature": {
        "relative": {"rank": 3, "extent": 200},
        "temperature": {"scale": 0.5, "length": 20, "shift": 1, "smooth": True},
        "softcap": 0.7,
    },
    "norm of the output, gate": {"output_norm": {"eps": 0.05}, "gate": "elementwise", "num_kv_heads": 2},
    "factors of heads": {"head_gain": True, "qk_norm": {"when": "after_rope"}},
    "logarithms of positions": {"log_scaling": True, "num_kv_heads": 2},
    "sinks, grouped, window": {"sinks": True, "num_kv_heads": 2, "window_size": 9},
    "sinks, softcap, window": {"sinks": True, "softcap": 0.7, "num_kv_heads": 1, "window_size": 66},
    "gate": {"gate": "elementwise"},
    "gate of heads": {"gate": "head", "num_kv_heads": 2},
    "gate by softplus": {"gate": "head", "gate_activation": "softplus"},
    "gate with bias": {"gate": "head", "num_kv_heads": 2, "bias": {"q": True, "g": True}},
    "input and keys scaled": {"input_scale": 0.6, "key_scale": 0.3, "bias": True, "num_kv_heads": 2, "clip": 1.5},
    "norm after rope": {"qk_norm": {"when": "after_rope", "eps": 0.1}, "num_kv_heads": 2},
    "norm without weight": {"qk_norm": {"weight": False, "eps": 0.1}},
    "norm over all": {"qk_norm": {"over": "all", "eps": 0.1}, "num_kv_heads": 2},
    "layer norm": {"qk_norm": {"type": "layer_norm", "eps": 0.1}},
    "layer norm of heads": {"qk_norm": {"type": "layer_norm", "per_head": True, "eps": 0.1}, "num_kv_heads": 2},
    "layer norm with a bias": {"qk_norm": {"type": "layer_norm", "bias": True, "eps": 0.1}, "num_kv_heads": 2},
    "layer norm of heads with a bias": {"qk_norm": {"type": "layer_norm", "bias": True, "per_head": True, "eps": 0.1}},
    "norm of heads after rope": {"qk_norm": {"per_head": True, "when": "after_rope", "eps": 0.1}},
    "norm with an offset": {"qk_norm": {"offset": 0.75, "eps": 0.1}, "num_kv_heads": 2},
    "norm of heads with an offset": {"qk_norm": {"offset": 0.75, "per_head": True, "eps": 0.1}},
    "norm of values": {"v_norm": {"eps": 0.1}, "num_kv_heads": 2},
    "values are keys": {"k_eq_v": True, "num_kv_heads": 2},
    "values are keys, norms": {"k_eq_v": True, "qk_norm": {"eps": 0.1}, "v_norm": {"eps": 0.2}},
    "chunks": {"chunk_size": 9, "num_kv_heads": 2},
    "long chunks, sinks": {"chunk_size": 70, "sinks": True},
    "chunks, softcap": {"chunk_size": 70, "softcap": 0.7, "rope": False},
    "values of another width": {"v_head_dim": 12, "num_kv_heads": 2, "gate": "elementwise"},
    "values of two groups": {"head_dim": 64, "v_head_dim": 32, "num_kv_heads": 2, "rope": False},
    "values scaled": {"value_scale": 0.7, "v_norm": {"eps": 0.2}, "num_kv_heads": 2},
    "values that are keys scaled": {"value_scale": 0.7, "k_eq_v": True},
    "turned the other way": {"rope": {"reverse": True}, "num_kv_heads": 2},
    "clip": {"clip": 0.4, "rope": False},
    "temperature": {"temperature": {"scale": 0.5, "length": 20, "shift": 1}, "num_kv_heads": 2},
    "temperature without steps": {"temperature": {"scale": 0.5, "length": 20, "smooth": True}},
}
SCORED = {name: CASES[name] for name in [*list(CASES)[:9], "temperature", "values of two groups", "chunks"]}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition(case):
    layer, x = build(**CASES[case]), inputs(150)
    want = definition(layer, np.array(x[0], dtype=np.float64), CASES[case])
    np.testing.assert_allclose(np.array(layer(x)[0][0]), want, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_declared_parameters_are_the_built_ones(case):
    from axon_core.specs.attention import SPECS

    for more in ({}, {"kv_from": "other"}):
        if more and "relative" in CASES[case]:
            continue
        options = AttentionOptions.model_validate({"num_heads": 4, **CASES[case], **more})
        built = {name: array.shape for name, array in weights_of(Attention.from_options(options, DIMS))}
        assert built == SPECS[0].params(options, DIMS)


@pytest.mark.parametrize("cuts", [[150], [64, 64, 22], [1, 2, 70, 1, 76], [97] + [1] * 53], ids=str)
@pytest.mark.parametrize("case", SCORED)
def test_cached_equals_one_pass(case, cuts):
    layer, x = build(**CASES[case]), inputs(150)
    window = layer.window_size
    cache = KVCache() if window is None else RotatingKVCache(window)
    outputs, at = [], 0
    for length in cuts:
        outputs.append(layer(x[:, at : at + length], cache=cache)[0])
        at += length
    np.testing.assert_allclose(np.array(mx.concatenate(outputs, axis=1)), np.array(layer(x)[0]), atol=5e-6)


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("case", SCORED)
def test_a_padded_batch_equals_its_rows(case, rows):
    """Batches of as many rows as key heads too, where a mask that lands on the wrong axis would go unnoticed."""
    fields = CASES[case]
    layer, x = build(**fields), inputs(80, batch=rows)
    padding = [0, 67, 5][:rows]
    window = layer.window_size
    cache = BatchKVCache(padding) if window is None else BatchRotatingKVCache(window, padding)
    mask = None
    if window is None:
        mask = create_attention_mask(x[:, :78], cache, return_array=True)
        assert mask.ndim == 4
    outputs = [layer(x[:, :78], mask, cache)[0], layer(x[:, 78:79], cache=cache)[0], layer(x[:, 79:], cache=cache)[0]]
    y = mx.concatenate(outputs, axis=1)
    for row, left in enumerate(padding):
        want = definition(layer, np.array(x[row], dtype=np.float64), fields, first=left)
        np.testing.assert_allclose(np.array(y[row, left:]), want[left:], atol=1e-5)


@pytest.mark.parametrize("case", SCORED)
def test_a_quantised_cache(case):
    """Eight bits hold a key to a few thousandths; a wrong group or a dropped sink is off by far more."""
    fields = {**CASES[case], "head_dim": 64, "window_size": None}
    layer, x = build(**fields), inputs(100)
    plain, quantised = KVCache(), QuantizedKVCache(group_size=32, bits=8)
    for piece in (x[:, :98], x[:, 98:99], x[:, 99:]):
        want, got = layer(piece, cache=plain)[0], layer(piece, cache=quantised)[0]
        assert np.linalg.norm(got - want) < 0.02 * np.linalg.norm(want)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_definition(case):
    """Along a random direction, against central differences of the float64 definition."""
    layer, x = build(**CASES[case]), inputs(70)
    out = mx.random.normal((70, 32), key=mx.random.key(5))
    grads = dict(tree_flatten(nn.value_and_grad(layer, lambda m: (m(x)[0][0] * out).sum())(layer)[1]))
    x64, out64 = np.array(x[0], dtype=np.float64), np.array(out, dtype=np.float64)

    for number, (name, value) in enumerate(weights_of(layer)):
        step = mx.random.normal(value.shape, key=mx.random.key(number)) * 2**-7
        ends = []
        for sign in (1, -1):
            moved = tree_unflatten([(name, value + sign * step)])
            layer.update(moved)
            ends.append((definition(layer, x64, CASES[case]) * out64).sum())
        layer.update(tree_unflatten([(name, value)]))
        want, got = (ends[0] - ends[1]) / 2, float((grads[name] * step).sum())
        # A difference over a step of 1/128 is good to its square; a clip has kinks in between.
        size = float(mx.sqrt((grads[name] ** 2).sum() * (step**2).sum()))
        assert abs(got - want) < (0.05 if case == "clip" else 0.01) * size + 1e-4, name
        assert size > 1e-3, name


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_in_bfloat16_out(case):
    layer = build(**CASES[case])
    want = layer(inputs(70))[0]
    layer.set_dtype(mx.bfloat16)
    y = layer(inputs(70).astype(mx.bfloat16))[0]
    assert y.dtype == mx.bfloat16
    # Weights, activations and results of five steps are each rounded to 8 bits; queries and keys are three times wider.
    assert np.abs(np.array(y.astype(mx.float32)) - np.array(want)).mean() < 0.02


def test_a_ring_that_holds_more_than_the_window_knows_the_distances():
    """A cache of somebody's own: the mask hides what is too far back, wherever in the ring it is."""
    layer, x = build(**CASES["relative, as far as the window"]), inputs(60)
    cache = RotatingKVCache(max_size=23)
    y = mx.concatenate([layer(part, cache=cache)[0] for part in mx.split(x, [*range(10, 60)], axis=1)], axis=1)
    np.testing.assert_allclose(np.array(y), np.array(layer(x)[0]), atol=5e-6)


def test_capped_scores_of_a_long_prompt_take_blocks_of_memory():
    """Four heads of 4096 x 4096 float32 scores are 256 MiB; a block of 64 queries 4 MiB for each step of the maths.

    Some fifteen steps are alive at once, for MLX runs ten operations ahead on the CPU.
    """
    layer, x = build(softcap=5.0), inputs(4096)
    for mask in (None, mx.tril(mx.ones((4096, 4096), dtype=mx.bool_))):
        mx.eval(x, mask)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(layer(x, mask)[0])
        assert mx.get_peak_memory() - before < 96 * 2**20


def test_temperature_is_that_of_ministral():
    options = TemperatureOptions(scale=0.3, length=7)
    for offset in (0, 40, mx.array([3, 100])):
        want = ministral3._get_llama_4_attn_scale(20, offset, 0.3, 7)
        np.testing.assert_allclose(np.array(query_gain(20, offset, options)), np.array(want), rtol=1e-6)


def test_temperature_of_padding_is_finite():
    gain = query_gain(4, mx.array([-30, 0]), TemperatureOptions(scale=1.0, length=2))
    np.testing.assert_allclose(np.array(gain)[:, 0, :, 0], [[1.0] * 4, [1, 1, 1 + np.log(2), 1 + np.log(2)]], rtol=1e-6)


def test_a_sink_takes_all():
    layer = build(sinks=True)
    layer.sinks = mx.full((4,), 50.0)
    assert mx.abs(layer(inputs(5))[0]).max() < 1e-10


def same(theirs, fields, x, hidden=32, drop=()):
    """Our layer with the weights of one of mlx-lm's equals it, on a prompt and in decoding."""
    mx.random.seed(3)
    layer = build(hidden, **fields)
    theirs.update(tree_unflatten([(n, mx.random.normal(a.shape) / 4) for n, a in tree_flatten(theirs.parameters())]))
    named = {drop.get(n, n) if drop else n: a for n, a in tree_flatten(theirs.parameters())}
    layer.load_weights(list(named.items()), strict=True)
    mine, other = KVCache(), KVCache()
    for piece in (x[:, :9], x[:, 9:10], x[:, 10:]):
        mask = create_attention_mask(piece, other, return_array=True)
        want = theirs(piece, mask, other)
        np.testing.assert_allclose(np.array(layer(piece, cache=mine)[0]), np.array(want), atol=2e-6)


def test_equals_gpt_oss():
    args = gpt_oss.ModelArgs(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    fields = {"num_kv_heads": 2, "head_dim": 8, "bias": True, "sinks": True, "rope": {"theta": 150000.0}}
    same(gpt_oss.AttentionBlock(args), fields, inputs(12))


def test_equals_gemma2():
    args = gemma2.ModelArgs(
        "gemma2", 32, 1, 64, 4, 8, 1e-6, 8, 2, query_pre_attn_scalar=20.0, attn_logit_softcapping=1.5
    )
    same(gemma2.Attention(args), {"num_kv_heads": 2, "softcap": 1.5, "scale": 20**-0.5}, inputs(12))


def test_equals_olmo2():
    args = olmo2.ModelArgs("olmo2", 32, 1, 64, 4, 1e-5, 8, num_key_value_heads=2)
    same(olmo2.Attention(args), {"num_kv_heads": 2, "qk_norm": {"over": "all", "eps": 1e-5}}, inputs(12))


def test_equals_cohere():
    args = cohere.ModelArgs("cohere", hidden_size=32, num_attention_heads=4, num_key_value_heads=2, use_qk_norm=True)
    norm_options = {"type": "layer_norm", "per_head": True, "eps": args.layer_norm_eps}
    rope = {"theta": args.rope_theta, "traditional": True}
    same(cohere.Attention(args), {"num_kv_heads": 2, "qk_norm": norm_options, "rope": rope}, inputs(12))


def test_equals_afmoe():
    args = afmoe.ModelArgs(
        "afmoe",
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        layer_types=["full_attention"],
    )
    fields = {"num_kv_heads": 2, "gate": "elementwise", "qk_norm": {"eps": args.rms_norm_eps}, "rope": False}
    same(afmoe.Attention(args, 0), fields, inputs(12), drop={"gate_proj.weight": "g_proj.weight"})


@pytest.mark.parametrize(
    ("fields", "where", "fault"),
    [
        ({"softcap": 0.0}, ("softcap",), "greater than 0"),
        ({"clip": -1.0}, ("clip",), "greater than 0"),
        ({"gate": "sigmoid"}, ("gate",), "'elementwise' or 'head'"),
        ({"relative": {"rank": 2, "extent": 4}, "alibi": True}, (), "`relative` does not go with `alibi`"),
        ({"relative": {"rank": 2, "extent": 4}, "kv_from": "a"}, (), "`relative` does not go with"),
        ({"relative": {"rank": 0, "extent": 4}}, ("relative", "rank"), "greater than 0"),
        ({"gate_activation": "softplus"}, (), "it needs `gate`"),
        ({"qk_norm": {"over": "all", "per_head": True}}, ("qk_norm",), "`per_head` needs `over: head`"),
        ({"qk_norm": {"weight": False, "per_head": True}}, ("qk_norm",), "and `weight: true`"),
        ({"qk_norm": {"weight": False, "offset": 1}}, ("qk_norm",), "`offset` is added to the learned scale"),
        ({"v_norm": {"weight": True}}, ("v_norm", "weight"), "Extra inputs"),
    ],
)
def test_faulty_options_are_told_at_their_place(fields, where, fault):
    with pytest.raises(ValidationError) as raised:
        AttentionOptions.model_validate({"num_heads": 4, **fields})
    (error,) = raised.value.errors()
    assert error["loc"] == where
    assert fault in error["msg"]
