"""Latent attention without a cache: against the definition in float64, and against mlx-lm's modules."""

import math

import attention_reference as reference
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers import shrunk
from mlx.utils import tree_flatten
from mlx_lm.models import deepseek_v2, deepseek_v3, kimi_linear, longcat_flash, minicpm3, youtu_llm
from pydantic import ValidationError

from axon_compose.registry import KV, Dims
from axon_core import window
from axon_core.latent_attention import LatentAttention
from axon_core.rope import rope_gain, rope_periods
from axon_core.specs.latent_attention import SPECS, LatentAttentionOptions

DIMS = Dims({"hidden_size": 32, "vocab_size": 8})
(SPEC,) = SPECS
SMALL = {"num_heads": 3, "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
YARN = {"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 32, "beta_fast": 8.0}
YARN |= {"mscale": 1.0, "mscale_all_dim": 0.7}


def build(seed=0, **fields):
    mx.random.seed(seed)
    layer = LatentAttention.from_options(LatentAttentionOptions.model_validate(SMALL | fields), DIMS)
    # Random norms and biases, and larger weights, so that every one of them matters.
    for name, array in tree_flatten(layer.parameters()):
        if "." not in name:
            layer[name] = mx.random.normal(array.shape)
            continue
        module, last = name.rsplit(".", 1)
        if "layernorm" in name:
            layer[module][last] = mx.random.uniform(0.5, 2, array.shape)
        else:
            layer[module][last] = 2 * array if last == "weight" else mx.random.normal(array.shape)
    mx.eval(layer.parameters())
    return layer


def inputs(length, batch=1, seed=1, width=32):
    return mx.random.normal((batch, length, width), key=mx.random.key(seed))


def definition(layer, fields, x):
    """The whole layer on `x` (L, D) in float64: keys and values of every head written out."""
    options = LatentAttentionOptions.model_validate(SMALL | fields)
    w = {name: np.array(array, dtype=np.float64) for name, array in tree_flatten(layer.parameters())}

    def project(name, z):
        return z @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(name, z):
        return z / np.sqrt((z**2).mean(-1, keepdims=True) + options.norm_eps) * w[f"{name}.weight"]

    def rotate(z):
        if options.rope is None:
            return z
        periods = rope_periods(options.rope, options.rope.rotated(options.qk_rope_head_dim)) / np.exp(
            w.get("rope_alpha", 0.0)
        )
        return reference.rotate(z, periods, np.arange(len(x)), options.rope.traditional, rope_gain(options.rope))

    heads, nope, rank = options.num_heads, options.qk_nope_head_dim, options.kv_lora_rank
    if "q_proj.weight" in w:
        q = project("q_proj", x)
    else:
        raw = project("q_a_proj", x)
        normed = norm("q_a_layernorm", raw)
        both = np.concatenate([normed, raw], axis=-1)
        q = project("q_b_proj", both if options.both_latents else normed)
    q = options.lora_scale.q * q.reshape(len(x), heads, -1).transpose(1, 0, 2)
    latent, k_pe = np.split(project("kv_a_proj_with_mqa", x), [rank], axis=-1)
    latent = options.lora_scale.kv * norm("kv_a_layernorm", latent)
    k_pe = norm("k_rope_layernorm", k_pe) if options.rope_key_norm else k_pe
    k_pe = rotate(k_pe[None])
    keys = [np.concatenate([latent @ w["embed_q.weight"][h], k_pe[0]], axis=-1) for h in range(heads)]
    values = [latent @ w["unembed_out.weight"][h].T for h in range(heads)]
    queries = np.concatenate([q[..., :nope], rotate(q[..., nope:])], axis=-1)

    scale = options.scale or queries.shape[-1] ** -0.5
    scaling = options.rope and options.rope.scaling
    if options.scale is None and scaling and scaling.mscale_all_dim:
        scale *= (1 + 0.1 * scaling.mscale_all_dim * math.log(scaling.factor)) ** 2
    if options.temperature:
        step = (np.arange(len(x)) + options.temperature.shift) // options.temperature.length
        queries = queries * (1 + options.temperature.scale * np.log(1 + step))[:, None]
    if options.log_scaling:
        scale_of, bias_of = (w[f"log_scaling.{name}"][:, None, None] for name in ("scale", "bias"))
        queries = queries * (scale_of * np.log(np.arange(len(x)) + 1)[:, None] + bias_of)
    y = reference.softmax_attention(
        queries, np.stack(keys), np.stack(values), scale, options.window_size, sinks=w.get("sinks")
    ).transpose(1, 0, 2)
    if options.gate:
        y = y / (1 + np.exp(-project("g_proj", both if options.both_latents else x))).reshape(len(x), heads, -1)
    return project("o_proj", y.reshape(len(x), -1))


CASES = {
    "plain": {},
    "no rope": {"rope": False},
    "query latent": {"q_lora_rank": 16, "norm_eps": 0.1},
    "biases": {"q_lora_rank": 16, "bias": True},
    "biases, full queries": {"bias": True},
    "yarn": {"q_lora_rank": 16, "rope": {"theta": 100.0, "scaling": YARN}},
    "yarn, own scale": {"rope": {"theta": 100.0, "scaling": YARN}, "scale": 0.3},
    "half rotation": {"rope": {"traditional": False}},
    "factors": {"q_lora_rank": 16, "lora_scale": {"q": 1.4, "kv": 0.7}},
    "values as wide as keys": {"v_head_dim": None},
    "one head": {"num_heads": 1},
    "narrow latent": {"kv_lora_rank": 6, "q_lora_rank": 16},
    "gate of a head": {"gate": "head", "rope": False},
    "gate of an element": {"q_lora_rank": 16, "gate": "elementwise"},
    "sinks": {"q_lora_rank": 16, "sinks": True},
    "temperature": {"temperature": {"scale": 0.4, "length": 4, "shift": 1}},
    "learned frequencies": {"rope": {"learned": True, "theta": 50.0}},
    "learned frequencies, halves": {"rope": {"learned": True, "theta": 50.0, "dims": 6, "traditional": False}},
    "both latents": {"q_lora_rank": 16, "both_latents": True, "norm_eps": 0.1},
    "both latents, gate": {"q_lora_rank": 16, "both_latents": True, "gate": "elementwise"},
    "window": {"window_size": 6, "q_lora_rank": 16},
    "window of one, sinks": {"window_size": 1, "sinks": True},
    "norm of the rotated key": {"rope_key_norm": True, "norm_eps": 0.1, "window_size": 11},
    "norm without a rotation": {"rope_key_norm": True, "rope": False},
    "logarithms of positions": {"log_scaling": True, "q_lora_rank": 16},
}


def close(found, expected, limit=1e-5):
    found, expected = np.array(found, np.float64), np.array(expected, np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= limit * np.abs(expected).max()


@pytest.fixture(params=["chosen", "absorbed", "expanded"])
def form(request, monkeypatch):
    """Both forms, forced, and the layer's own choice."""
    if request.param != "chosen":
        monkeypatch.setattr(LatentAttention, "_absorbs", lambda *_: request.param == "absorbed")


@pytest.fixture(params=["whole", "blocks"])
def blocks(request, monkeypatch):
    """A prompt in one block of queries, and in many small ones, the last of them ragged."""
    if request.param == "blocks":
        monkeypatch.setattr(window, "_SCORES", 0)
        monkeypatch.setattr(window, "_LEAST_ROWS", 7)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("form", "blocks")
def test_equals_the_definition(case):
    layer, x = build(**CASES[case]), inputs(25, batch=2)
    y, cache = layer(x)
    assert cache is None
    for row, want in zip(y, x, strict=True):
        close(row, definition(layer, CASES[case], np.array(want, np.float64)))


@pytest.mark.usefixtures("form", "blocks")
@pytest.mark.parametrize("at", [1, 6, 7, 13, 14, 24])
def test_a_token_moves_nothing_before_it(at):
    layer, x = build(), inputs(25)
    moved = mx.concatenate([x[:, :at], -3 * x[:, at : at + 1], x[:, at + 1 :]], axis=1)
    one, other = np.array(layer(x)[0]), np.array(layer(moved)[0])
    np.testing.assert_array_equal(one[:, :at], other[:, :at])
    assert np.abs(one[:, at] - other[:, at]).max() > 1e-3


@pytest.mark.usefixtures("form", "blocks")
@pytest.mark.parametrize("shape", [(25, 25), (1, 25), (2, 1, 25, 25), (2, 3, 25, 25)], ids=str)
def test_an_explicit_mask_is_taken_as_it_is(shape):
    layer, x = build(), inputs(25, batch=2)
    mask = mx.random.uniform(shape=shape, key=mx.random.key(3)) < 0.3
    mask = mask | (mx.arange(25) == 4)  # every query sees something
    full = np.broadcast_to(np.array(mask), (2, 3, 25, 25))
    w = {name: np.array(array, dtype=np.float64) for name, array in tree_flatten(layer.parameters())}
    q_nope, q_pe = (np.array(a, np.float64) for a in layer._queries(x, 0))
    latent, k_pe = (np.array(a, np.float64) for a in layer._latent(x, 0))
    scores = np.einsum("bhln,hrn,bsr->bhls", q_nope, w["embed_q.weight"], latent[:, 0])
    scores += np.einsum("bhlp,bsp->bhls", q_pe, k_pe[:, 0])
    weights = np.where(full, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhls,bsr,hvr->blhv", weights, latent[:, 0], w["unembed_out.weight"])
    close(layer(x, mask)[0], y.reshape(2, 25, -1) @ w["o_proj.weight"].T)


@pytest.mark.usefixtures("form", "blocks")
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_query_that_sees_nothing_stays_finite(dtype):
    layer, x = build(), inputs(25)
    layer.set_dtype(dtype)
    mask = (mx.arange(25)[:, None] >= mx.arange(25)) & (mx.arange(25) >= 9)
    y = layer(x.astype(dtype), mask)[0]
    assert y.dtype == dtype
    assert mx.isfinite(y).all()


@pytest.mark.usefixtures("form", "blocks")
@pytest.mark.parametrize("case", CASES)
def test_gradients_agree_with_differences_of_the_definition(case):
    fields = CASES[case]
    layer, x = build(**fields), inputs(25)
    weight = np.random.default_rng(5).normal(size=(25, 32))
    w = mx.array(weight.astype(np.float32))
    grads = dict(tree_flatten(nn.value_and_grad(layer, lambda m: (m(x)[0][0] * w).sum())(layer)[1]))
    assert set(grads) == set(SPEC.params(LatentAttentionOptions.model_validate(SMALL | fields), DIMS))
    base = {name: np.array(array, np.float64) for name, array in tree_flatten(layer.parameters())}
    rng, exact = np.random.default_rng(6), np.array(x[0], np.float64)
    for name, grad in grads.items():
        direction = rng.normal(size=grad.shape)

        def value(step, name=name, direction=direction):
            shifted = type("Shifted", (), {})()
            shifted.parameters = lambda: base | {name: base[name] + step * direction}
            return (weight * definition(shifted, fields, exact)).sum()

        scale = np.abs(np.array(grad) * direction).sum()
        assert scale > 0, name
        slope = (value(1e-6) - value(-1e-6)) / 2e-6
        assert slope == pytest.approx((np.array(grad) * direction).sum(), abs=1e-5 * scale), name


@pytest.mark.usefixtures("form")
def test_bfloat16_in_bfloat16_out():
    layer = build(q_lora_rank=16)
    want = layer(inputs(25))[0]
    layer.set_dtype(mx.bfloat16)
    y = layer(inputs(25).astype(mx.bfloat16))[0]
    assert y.dtype == mx.bfloat16
    # Weights, activations, scores and results of seven steps are each rounded to 8 bits.
    close(y.astype(mx.float32), want, 0.04)


def test_memory_of_a_long_prompt_does_not_hold_all_scores(monkeypatch):
    """Three heads of 2048 x 2048 scores are 48 MiB; keys, values and what becomes of a block's scores are a few MiB."""
    monkeypatch.setattr(window, "_SCORES", 2**17)
    layer, x = build(), inputs(2048)
    mx.eval(layer(x)[0])
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(layer(x)[0])
    assert mx.get_peak_memory() - before < 12 * 2**20


def test_the_form_that_multiplies_less():
    """Counted by hand for the widths of DeepSeek-V3, 512, 128 and 128: about 170 queries on a long context."""
    layer = build(kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
    assert layer._absorbs(1, 2)
    assert not layer._absorbs(1, 1)
    assert not layer._absorbs(64, 64)
    assert layer._absorbs(169, 100_000)
    assert not layer._absorbs(171, 100_000)
    # A latent that is narrower than key and value together: nothing is gained by expanding it.
    assert build(kv_lora_rank=6)._absorbs(20, 21)


def mlx_lm_args(module, **fields):
    """mlx-lm's arguments for the widths of `SMALL`; those that a family does not have are dropped."""
    args = {
        "hidden_size": 32, "num_attention_heads": 3, "num_key_value_heads": 3, "kv_lora_rank": 20, "q_lora_rank": 16,
        "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10, "rms_norm_eps": 1e-5, "vocab_size": 8,
        "attention_bias": False, "max_position_embeddings": 1280, "rope_theta": 100.0, "model_type": "",
    }  # fmt: skip
    return module.ModelArgs.from_dict(args | fields)


def longcat_args(**fields):
    more = {"attention_method": "MLA", "zero_expert_type": "", "ffn_hidden_size": 8, "moe_topk": 1}
    more |= {"expert_ffn_hidden_size": 8, "n_routed_experts": 1, "zero_expert_num": 0, "num_layers": 1}
    more |= {"mla_scale_q_lora": True, "mla_scale_kv_lora": True, "routed_scaling_factor": 1.0}
    return mlx_lm_args(longcat_flash, **more, **fields)


def kimi_args():
    more = {"num_hidden_layers": 1, "intermediate_size": 8, "moe_intermediate_size": 8, "model_max_length": 64}
    more |= {"head_dim": 12, "linear_attn_config": {}, "num_experts": 1, "q_lora_rank": None}
    return mlx_lm_args(kimi_linear, **more)


ROPE = {"theta": 100.0}
FACTORS = {"long_factor": [1.0, 2.0, 3.0, 4.0], "short_factor": [1.0] * 4}
THEIR_YARN = {**YARN, "rope_type": "yarn", "beta_slow": 1}
FAMILIES = {
    "deepseek_v3": (
        lambda: deepseek_v3.DeepseekV3Attention(mlx_lm_args(deepseek_v3, attention_bias=True)),
        {"q_lora_rank": 16, "bias": True, "rope": ROPE},
    ),
    "deepseek_v3, yarn": (
        lambda: deepseek_v3.DeepseekV3Attention(mlx_lm_args(deepseek_v3, q_lora_rank=None, rope_scaling=THEIR_YARN)),
        {"rope": {"theta": 100.0, "scaling": YARN}},
    ),
    "deepseek_v2, yarn": (
        lambda: deepseek_v2.DeepseekV2Attention(mlx_lm_args(deepseek_v2, rope_scaling=THEIR_YARN)),
        {"q_lora_rank": 16, "rope": {"theta": 100.0, "scaling": YARN}},
    ),
    "youtu_llm": (
        lambda: youtu_llm.YoutuLLMAttention(mlx_lm_args(youtu_llm)),
        {"q_lora_rank": 16, "norm_eps": 1e-5, "rope": ROPE},
    ),
    "minicpm3": (
        lambda: minicpm3.Attention(
            mlx_lm_args(
                minicpm3, num_hidden_layers=1, intermediate_size=8, dim_model_base=8, scale_depth=1.0, scale_emb=1.0,
                hidden_size=30, attention_bias=True, max_position_embeddings=64,
                rope_scaling={
                    "original_max_position_embeddings": 32, **FACTORS,
                },
            )
        ),
        {
            "q_lora_rank": 16, "norm_eps": 1e-5, "bias": True,
            "rope": {
                "theta": 100.0, "traditional": False,
                "scaling": {
                    "type": "longrope", "factor": 2.0, "original_max_position_embeddings": 32,
                    **FACTORS,
                },
            },
        },
    ),
    "longcat_flash": (
        lambda: longcat_flash.LongcatFlashMLA(longcat_args()),
        {"q_lora_rank": 16, "norm_eps": 1e-5, "rope": ROPE, "lora_scale": {"q": 2**0.5, "kv": 1.6**0.5}},
    ),
    "kimi_linear": (lambda: kimi_linear.KimiMLAAttention(kimi_args()), {"norm_eps": 1e-5, "rope": False}),
}  # fmt: skip


def split_kv_b(weights, heads=3, nope=12):
    """What a converted checkpoint has in place of `kv_b_proj`: the part of the keys transposed, that of the values."""
    both = weights.pop("kv_b_proj.weight", None)
    if both is not None:
        both = both.reshape(heads, -1, both.shape[-1])
        weights |= {
            "embed_q.weight": both[:, :nope].swapaxes(-1, -2),
            "unembed_out.weight": both[:, nope:],
        }
    return weights


@pytest.mark.usefixtures("form", "blocks")
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_module_of_mlx_lm(family):
    make, fields = FAMILIES[family]
    mx.random.seed(0)
    theirs = make()
    for name, array in tree_flatten(theirs.parameters()):
        module, last = name.rsplit(".", 1)
        if "layernorm" in name:
            theirs[module][last] = mx.random.uniform(0.5, 2, array.shape)
    hidden = theirs.o_proj.weight.shape[0]
    ours = LatentAttention.from_options(
        LatentAttentionOptions.model_validate(SMALL | fields), Dims({"hidden_size": hidden, "vocab_size": 8})
    )
    ours.load_weights(list(split_kv_b(dict(tree_flatten(theirs.parameters()))).items()), strict=True)
    x = inputs(25, width=hidden)
    causal = mx.arange(25)[:, None] >= mx.arange(25)
    close(ours(x)[0], theirs(x, mask=causal))


@pytest.mark.parametrize("example", [*SPEC.examples, *(shrunk(SPEC, e) for e in SPEC.examples)], ids=str)
def test_declared_parameters_are_the_built_ones(example):
    options = LatentAttentionOptions.model_validate(example)
    layer = LatentAttention.from_options(options, DIMS)
    assert {name: array.shape for name, array in tree_flatten(layer.parameters())} == SPEC.params(options, DIMS)


def test_the_cache_of_deepseek_v3():
    written = {"num_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128}
    options = LatentAttentionOptions.model_validate({**written, "qk_rope_head_dim": 64})
    spec = SPEC.cache(options, DIMS)
    assert spec == KV(1, 512, 64)
    assert spec.elements(1) == 576
    assert KV(128, 192, 128).elements(1) == 40960  # what 128 heads with keys and values of their own would keep


def test_shrink_keeps_the_structure():
    long = {"type": "longrope", "factor": 2.0, "original_max_position_embeddings": 64}
    long |= {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}
    written = {"num_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128}
    written |= {"qk_rope_head_dim": 64, "rope": {"scaling": long}}
    small = shrunk(SPEC, written)
    assert small["q_lora_rank"] == 24
    assert "v_head_dim" not in small
    options = LatentAttentionOptions.model_validate(small)
    assert options.rope.rotated(options.qk_rope_head_dim) == 8
    assert written["rope"]["scaling"]["short_factor"] == [1.0] * 32
    assert shrunk(SPEC, SMALL | {"q_lora_rank": None, "num_heads": 2})["q_lora_rank"] is None
    layer = LatentAttention.from_options(options, DIMS)
    assert layer._absorbs(1, 9)
    assert not layer._absorbs(9, 9)


@pytest.mark.parametrize(
    ("fields", "where", "fault"),
    [
        ({"kv_lora_rank": 0}, ("kv_lora_rank",), "greater than 0"),
        ({"q_lora_rank": "8"}, ("q_lora_rank",), "valid integer"),
        ({"lora_scale": {"q": 2.0}}, (), "needs a `q_lora_rank`"),
        ({"lora_scale": {"v": 2.0}}, ("lora_scale", "v"), "Extra inputs"),
        ({"rope": {"theta": True}}, ("rope", "theta"), "valid number"),
        ({"head_dim": 3}, ("head_dim",), "Extra inputs"),
        ({"alphas_from": "first"}, (), "needs `rope: {learned: true}`"),
        ({"alphas_from": "first", "rope": False}, (), "needs `rope: {learned: true}`"),
    ],
    ids=str,
)
def test_faulty_options_are_told_at_their_place(fields, where, fault):
    with pytest.raises(ValidationError) as raised:
        LatentAttentionOptions.model_validate(SMALL | fields)
    (error,) = raised.value.errors()
    assert error["loc"] == where
    assert fault in error["msg"]


def test_a_rope_that_does_not_fit():
    with pytest.raises(ValueError, match="even number of dimensions"):
        SPEC.params(LatentAttentionOptions.model_validate(SMALL | {"qk_rope_head_dim": 7}), DIMS)


def test_defaults():
    options = LatentAttentionOptions.model_validate(SMALL | {"v_head_dim": None, "rope": {"theta": 1e6}})
    assert options.rope.traditional
    assert options.value_dim == 12
    assert options.softmax_scale == 20**-0.5
    assert LatentAttentionOptions.model_validate(SMALL | {"rope": True}).rope.theta == 10000.0
