"""Parts of a block in one operation, with the norm before and the sum behind: what their steps give, or left to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.models.cache import (
    ArraysCache,
    BatchKVCache,
    BatchRotatingKVCache,
    ConcatenateKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear
from stored_layers import drawn

from axon_compose.registry import Shard
from axon_core import few_tokens
from axon_core.attention import Attention
from axon_core.cpu import reference_implementations
from axon_core.few_tokens import added
from axon_core.mamba import Mamba
from axon_core.mlp import MLP
from axon_core.moe import MoE, SharedExpertMoE
from axon_core.norms import HeadNorm, LayerNorm, RMSNorm
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
from axon_core.specs._moe_options import ExpertNormOptions, LatentNormOptions, LatentNormPartOptions, RouterNormOptions
from axon_core.specs._rope import RopeOptions
from axon_core.ssm import AxonSSM, SSMConfig

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

WIDTH, INNER, HEADS = 64, 96, 2
TOKENS = 12
types = pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
WHOLE = ("native_mlp", "native_attended", "native_routed", "native_selective")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whole layers that run in one operation from here on."""
    found: list[str] = []
    for name in WHOLE:
        call = getattr(few_tokens, name)

        def counting(*arguments: Any, name: str = name, call: Any = call, **options: Any) -> Any:
            y = call(*arguments, **options)
            if y is not None:
                found.append(name)
            return y

        monkeypatch.setattr(few_tokens, name, counting)
    return found


def varied(layer: Any, dtype: mx.Dtype = mx.float32) -> Any:
    """A layer whose numbers are all drawn: ones and zeros would hide what is left out."""
    layer.eval()
    drawn_ones = [
        (name, value + 0.2 * drawn(*value.shape, seed=i)) if mx.issubdtype(value.dtype, mx.floating) else (name, value)
        for i, (name, value) in enumerate(tree_flatten(layer.parameters()))
    ]
    layer.update(tree_unflatten(drawn_ones))
    layer.set_dtype(dtype)
    return layer


def decoded(
    layer: Any, norm: Any, cache: Any, dtype: mx.Dtype, batch: int = 2, of: mx.Dtype = mx.float32, **more: Any
) -> mx.array:
    """Token after token, rounded to a type before; where there is no norm, what the layer itself gives."""
    x, found = drawn(batch, TOKENS, WIDTH, seed=100).astype(of).astype(dtype), []
    arguments = more if cache is None else {"cache": cache, **more}
    for i in range(TOKENS):
        token = x[:, i : i + 1]
        if norm is None:
            y = layer(token, **arguments)
            y = y[0] if isinstance(y, tuple) else y
        else:
            y, _ = added(layer, norm, token, Shard(), **arguments)
        assert y.dtype == dtype
        found.append(y)
        mx.eval(y)
    return mx.concatenate(found, axis=1)


def agree(layer: Any, cache: Callable[[], Any], dtype: mx.Dtype = mx.float32, norm: Any = None, **more: Any) -> bool:
    """Whether a layer gives the same as in reference implementations, by itself and with a norm and a sum."""
    norms = (None, varied(RMSNorm(WIDTH, 1e-5, offset=1.0), dtype)) if norm is None else (norm,)
    for each in norms:
        y = decoded(layer, each, cache(), dtype, **more)
        with reference_implementations():
            steps = decoded(layer, each, cache(), dtype, **more)
        if dtype == mx.float32:
            if not mx.abs(y - steps).max() <= 1e-5 * mx.abs(steps).max():
                return False
            continue
        truth = widened(layer, each, cache(), dtype, **more)
        lost, known = (mx.abs(found.astype(mx.float32) - truth).max() for found in (y, steps))
        if not lost <= 1.5 * known + 2.0**-8 * mx.abs(truth).max():
            return False
    return True


def widened(layer: Any, norm: Any, cache: Any, dtype: mx.Dtype, **more: Any) -> mx.array:
    """What the same numbers give in float32, in steps: those in 16 bits round every one of them."""
    parts = [part for part in (layer, norm) if part is not None]
    held = [part.parameters() for part in parts]
    for part, own in zip(parts, held, strict=True):
        part.update(tree_map(lambda a: a.astype(mx.float32) if a.dtype == dtype else a, own))
    try:
        with reference_implementations():
            return decoded(layer, norm, cache, mx.float32, of=dtype, **more)
    finally:
        for part, own in zip(parts, held, strict=True):
            part.update(own)


# -- Attention --------------------------------------------------------------------------------------------------------

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


def attention(**options: Any) -> Attention:
    return varied(Attention(WIDTH, options.pop("num_heads", HEADS), **options))


@types
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("cache", [KVCache, lambda: RotatingKVCache(5), lambda: RotatingKVCache(7, keep=2)])
def test_attention(name: str, cache: Callable[[], Any], dtype: mx.Dtype, counted: list[str]) -> None:
    layer = attention(**KNOWN[name])
    layer.set_dtype(dtype)
    assert agree(layer, cache, dtype)
    assert counted == ["native_attended"] * 2 * TOKENS


@types
@pytest.mark.parametrize("name", UNKNOWN)
def test_attention_that_does_more(name: str, dtype: mx.Dtype, counted: list[str]) -> None:
    layer = attention(**UNKNOWN[name])
    layer.set_dtype(dtype)
    assert agree(layer, KVCache, dtype)
    assert agree(layer, lambda: RotatingKVCache(20), dtype)
    assert counted == []


def test_every_option_is_asked_about() -> None:
    """What one of `Attention` has been added is either known to the operation or left to steps."""
    from inspect import signature

    tested = {name for each in (*KNOWN.values(), *UNKNOWN.values()) for name in each} | {"window_size", "indexer"}
    more = {"self", "hidden_dim", "num_heads", "kv_from", "shard"}
    assert set(signature(Attention.__init__).parameters) - more <= tested | {"num_kv_heads"}


@pytest.mark.parametrize("window", [1, 4, 8])
@pytest.mark.parametrize("room", [None, 4, 8])
def test_attention_with_a_window(window: int, room: int | None, counted: list[str]) -> None:
    """In one operation as long as all that is kept is seen."""
    layer = attention(window_size=window, rope=RopeOptions(), sinks=True)
    assert agree(layer, KVCache if room is None else lambda: RotatingKVCache(room))
    seen = TOKENS if room is not None and room <= window else window
    assert len(counted) == 2 * seen


def test_attention_with_an_indexer(counted: list[str]) -> None:
    from mlx_lm.models.cache import CacheList

    layer = attention(indexer=BlockIndexerOptions(num_heads=2, head_dim=8, block_size=2, top_k=2))
    assert agree(layer, lambda: CacheList(KVCache(), KVCache()))
    assert counted == []


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
def test_attention_with_other_caches(name: str, counted: list[str]) -> None:
    assert agree(attention(rope=RopeOptions(), bias=True), OTHERS[name])
    assert counted == []


def test_attention_with_a_mask(counted: list[str]) -> None:
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
    assert counted == []
    assert agree(layer, KVCache, mask="causal")
    assert counted


def test_attention_of_published_keys(counted: list[str]) -> None:
    layer, other = attention(), attention()
    x, held = drawn(2, 1, WIDTH), {}
    y = layer(x, cache=KVCache(), publish=held.__setitem__)[0]
    assert mx.allclose(layer(x, kv=held["kv"])[0], y, atol=1e-6)
    assert other.residual(None, x, cache=KVCache(), kv=held["kv"]) is None
    assert counted == []


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


def doubled(base: type, name: str) -> type:
    """A class one of whose methods gives twice what that of its base gives."""

    def twice(each: Any) -> Any:
        return 2 * each if isinstance(each, mx.array) and each.dtype in (mx.float32, mx.bfloat16) else each

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        found = getattr(base, name)(self, *arguments, **options)
        return tuple(map(twice, found)) if isinstance(found, tuple) else twice(found)

    return type("Doubled", (base,), {name: method})


METHODS = ["_projected", "_heads", "_by_head", "_turned", "_queries", "_keys_values", "_kept"]
LAST = ["__call__", "_default_mask", "_with_earlier", "_output", "_attend"]


@pytest.mark.parametrize("name", [*METHODS[:1], *METHODS[3:], *LAST])
def test_attention_with_steps_of_its_own(name: str, counted: list[str]) -> None:
    layer = varied(doubled(Attention, name)(WIDTH, HEADS, rope=RopeOptions()))
    assert agree(layer, KVCache)
    assert counted == []


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


NORMS: dict[str, Callable[[], nn.Module]] = {
    "of groups": lambda: RMSNorm(WIDTH, num_groups=4),
    "centred": lambda: RMSNorm(WIDTH, center=True),
    "scaled first": lambda: RMSNorm(WIDTH, scale_first=True),
    "a layer norm": lambda: LayerNorm(WIDTH),
    "MLX's": lambda: nn.RMSNorm(WIDTH),
    "a class of its own": lambda: doubled(RMSNorm, "__call__")(WIDTH),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_that_are_left_to_steps(name: str, counted: list[str]) -> None:
    parts = [
        (attention(), KVCache),
        (varied(MLP(WIDTH, INNER)), lambda: None),
        (varied(MoE(WIDTH, INNER, 4, 2)), lambda: None),
        (ssm(), lambda: ArraysCache(2)),
    ]
    for part, cache in parts:
        arguments = {} if cache() is None else {"cache": filled(cache())}
        assert part.residual(NORMS[name](), drawn(1, 1, WIDTH), **arguments) is None
        counted.clear()
        assert agree(part, cache, norm=NORMS[name]())


def filled(cache: Any) -> Any:
    if isinstance(cache, ArraysCache):
        cache[0], cache[1] = mx.zeros((1, 3, INNER)), mx.zeros((1, 16, INNER))
    return cache


# -- Feed-forward layers and experts ----------------------------------------------------------------------------------


@types
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"activation": "gelu_tanh"}], ids=str)
def test_mlp(options: dict[str, Any], bits: int | None, dtype: mx.Dtype, counted: list[str]) -> None:
    layer = varied(MLP(WIDTH, INNER, **options), dtype)
    if bits is not None:
        nn.quantize(layer, 32, bits)
    assert agree(layer, lambda: None, dtype)
    assert counted == ["native_mlp"] * 2 * TOKENS


@pytest.mark.parametrize(
    "options",
    [{"gain": True}, {"limit": 1.0}, {"gate_scale": 2.0}, {"sparsity": 0.5}, {"activation": "gelu"}, {"gated": False}],
    ids=str,
)
def test_mlp_that_does_more(options: dict[str, Any], counted: list[str]) -> None:
    layer = varied(MLP(WIDTH, INNER, **options))
    assert agree(layer, lambda: None)
    assert layer.residual(RMSNorm(WIDTH), drawn(1, 1, WIDTH)) is None
    assert counted == []


ROUTED: dict[str, dict[str, Any]] = {
    "none": {},
    "of the chosen": {"score": "topk_softmax"},
    "weights as they are": {"norm_topk": False, "routed_scaling_factor": 2.5},
    "a sum with more": {"norm_eps": 0.5},
    "biases": {"router_bias": True, "bias": True},
    "a shared expert": {"shared_intermediate_dim": 32},
    "a shared expert with a gate": {"shared_intermediate_dim": 64, "shared_gate": True, "shared_bias": True},
    "groups of which all are chosen": {"num_groups": 2, "top_k_groups": 2},
    "another activation": {"activation": "gelu_tanh", "shared_intermediate_dim": 32},
    "every expert": {"top_k": 4},
}
STEPPED: dict[str, dict[str, Any]] = {
    "sigmoid": {"score": "sigmoid"},
    "roots": {"score": "sqrt_softplus"},
    "sparsemixer": {"score": "sparsemixer"},
    "input_scaled": {"input_scaled": True},
    "router_norm": {"router_norm": RouterNormOptions()},
    "expert_norm": {"expert_norm": ExpertNormOptions()},
    "identity_experts": {"identity_experts": 2},
    "per_expert_scale": {"per_expert_scale": True},
    "router_softcap": {"router_softcap": 0.5},
    "correction_bias": {"correction_bias": True},
    "hashed_tokens": {"hashed_tokens": 10},
    "groups": {"num_groups": 2, "top_k_groups": 1, "group_score": "max"},
    "limit": {"limit": 0.1},
    "no gate": {"gated": False},
    "latent_dim": {"latent_dim": 32},
    "latent_norm": {"latent_dim": 32, "latent_norm": LatentNormOptions(read=LatentNormPartOptions())},
    "a softmax of shares": {"shared_intermediate_dim": 32, "shared_gate": "softmax"},
    "scored_shared": {"scored_shared": 1, "shared_intermediate_dim": 32},
    "gain": {"gain": True},
    "some of the experts": {"held": 2},
    "another activation": {"activation": "relu"},
}


@types
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("name", ROUTED)
def test_experts(name: str, bits: int | None, dtype: mx.Dtype, counted: list[str]) -> None:
    options = {"top_k": 2, **ROUTED[name]}
    layer = varied(MoE(WIDTH, INNER, 4, **options))
    layer.set_dtype(dtype)
    if bits is not None:
        nn.quantize(layer, 32, bits, class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-2] > 1)
    norm = varied(RMSNorm(WIDTH, 1e-5, offset=1.0), dtype)
    assert decoded(layer, norm, None, dtype).shape == (2, TOKENS, WIDTH)
    assert counted == ["native_routed"] * TOKENS
    if dtype == mx.float32:  # in 16 bits a rounding may send a token to another expert
        assert agree(layer, lambda: None)


@pytest.mark.parametrize("name", STEPPED)
def test_experts_that_do_more(name: str, counted: list[str]) -> None:
    layer = varied(MoE(WIDTH, INNER, 4, 2, **STEPPED[name]))
    more = {"tokens": mx.array([[3], [4]])} if name == "hashed_tokens" else {}
    assert agree(layer, lambda: None, **more)
    assert "native_routed" not in counted
    assert layer.residual(RMSNorm(WIDTH), drawn(2, 1, WIDTH), **more) is None


def test_every_option_of_experts_is_asked_about() -> None:
    from inspect import signature

    tested = {name for each in (*ROUTED.values(), *STEPPED.values()) for name in each}
    more = {"self", "dim", "intermediate_dim", "num_experts", "shared_once", "shard", "band", "corrected"}
    assert set(signature(MoE.__init__).parameters) - more <= tested


def test_experts_of_qwen2() -> None:
    assert agree(varied(SharedExpertMoE(WIDTH, INNER, 4, 2)), lambda: None)


def test_experts_whose_routing_is_asked_for(counted: list[str]) -> None:
    layer, found = varied(MoE(WIDTH, INNER, 4, 2)), {}
    y = layer(drawn(1, 1, WIDTH), publish=found.__setitem__)
    assert set(found) == {"routing"}
    assert layer.residual(None, drawn(1, 1, WIDTH), publish=found.__setitem__) is None
    assert counted == []
    assert mx.allclose(layer(drawn(1, 1, WIDTH)), y, atol=1e-6)


@pytest.mark.parametrize("name", ["__call__", "_routed", "_summed", "_with_shared", "_scores", "_chosen", "_best"])
def test_experts_with_steps_of_their_own(name: str, counted: list[str]) -> None:
    layer = varied(doubled(MoE, name)(WIDTH, INNER, 4, 2, shared_intermediate_dim=32))
    assert agree(layer, lambda: None)
    assert "native_routed" not in counted


class Other(nn.Module):
    """What somebody puts into the place of a part."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def __call__(self, *arguments: Any) -> mx.array:
        return 2 * self.base(*arguments)


@pytest.mark.parametrize("name", ["gate", "switch_mlp", "shared_expert", "shared_expert_gate"])
def test_experts_with_other_modules_in_the_place_of_parts(name: str, counted: list[str]) -> None:
    layer = varied(MoE(WIDTH, INNER, 4, 2, shared_intermediate_dim=32, shared_gate=True))
    layer[name] = Other(layer[name])
    assert agree(layer, lambda: None)
    assert "native_routed" not in counted


def test_experts_with_adapters(counted: list[str]) -> None:
    for name in ("gate", "switch_mlp.up_proj", "shared_expert.down_proj", "shared_expert_gate"):
        layer = varied(MoE(WIDTH, INNER, 4, 2, shared_intermediate_dim=32, shared_gate=True))
        *owner, last = name.split(".")
        place = layer[owner[0]] if owner else layer
        adapter = (LoRASwitchLinear if "switch" in name else LoRALinear).from_base(place[last])
        adapter.lora_b = drawn(*adapter.lora_b.shape)
        place[last] = adapter
        assert agree(layer.eval(), lambda: None)
    assert "native_routed" not in counted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 3),
        ("score", "sigmoid"),
        ("norm_topk", False),
        ("routed_scaling_factor", 0.5),
        ("router_softcap", 0.1),
        ("input_scaled", True),
        ("gain", mx.array([2.0])),
        ("correction_bias", mx.array([9.0, 0.0, 0.0, 3.0])),
    ],
)
def test_experts_that_were_changed(name: str, value: Any) -> None:
    layer = varied(MoE(WIDTH, INNER, 4, 2))
    before = decoded(layer, None, None, mx.float32)
    setattr(layer, name, value)
    assert agree(layer, lambda: None)
    assert not mx.allclose(decoded(layer, None, None, mx.float32), before, atol=1e-4)


# -- State spaces -----------------------------------------------------------------------------------------------------


def ssm(**options: Any) -> AxonSSM:
    return varied(AxonSSM(SSMConfig(WIDTH, INNER, **options)))


SPACES: dict[str, Callable[[], AxonSSM]] = {
    "none": ssm,
    "without a bias": lambda: ssm(ssm_conv_bias=False, ssm_bias=True, ssm_dt_rank="auto", ssm_d_state=5),
    "clipped": lambda: ssm(ssm_dt_min=0.5, ssm_dt_max=0.6),
    "short": lambda: ssm(ssm_d_conv=1, ssm_d_state=3),
    **{
        f"mamba with {norm} norms": lambda norm=norm: varied(Mamba(SSMConfig(WIDTH, INNER, ssm_dt_rank=4), norm, 1e-3))
        for norm in ("none", "weightless", "learned")
    },
}


@types
@pytest.mark.parametrize("name", SPACES)
def test_state_spaces(name: str, dtype: mx.Dtype, counted: list[str]) -> None:
    layer = SPACES[name]()
    layer.set_dtype(dtype)
    assert agree(layer, lambda: ArraysCache(2), dtype)
    assert counted == ["native_selective"] * 2 * (TOKENS - 1), "the first token has no state"


def padded() -> ArraysCache:
    cache = ArraysCache(2)
    cache.prepare(lengths=[5, 12], right_padding=[7, 0])
    return cache


class OwnArrays(ArraysCache):
    """A class that may do anything."""


@pytest.mark.parametrize("cache", [lambda: None, lambda: [None, None], padded, lambda: OwnArrays(2)])
def test_state_spaces_with_other_caches(cache: Callable[[], Any], counted: list[str]) -> None:
    assert agree(ssm(), cache)
    assert counted == []


def test_state_spaces_with_a_mask(counted: list[str]) -> None:
    assert agree(ssm(), lambda: ArraysCache(2), mask=mx.array([[True], [False]]))
    assert counted == []


@pytest.mark.parametrize(("base", "name"), [(AxonSSM, "_project"), (AxonSSM, "__call__"), (Mamba, "_project")])
def test_state_spaces_with_steps_of_their_own(base: type, name: str, counted: list[str]) -> None:
    assert agree(varied(doubled(base, name)(SSMConfig(WIDTH, INNER))), lambda: ArraysCache(2))
    assert counted == []


@pytest.mark.parametrize("name", ["in_proj", "x_proj", "dt_proj", "out_proj", "conv1d"])
def test_state_spaces_with_other_layers(name: str, counted: list[str]) -> None:
    layer = ssm()
    if name == "conv1d":
        layer.conv1d = type("Own", (nn.Conv1d,), {})(INNER, INNER, 4, groups=INNER)
    else:
        layer[name] = LoRALinear.from_base(layer[name])
        layer[name].lora_b = drawn(*layer[name].lora_b.shape)
        layer.eval()
    assert agree(layer, lambda: ArraysCache(2))
    assert counted == []


def test_more_rows_than_are_worth_it(counted: list[str]) -> None:
    """Five sequences; and none of the layers looks at more than one token at once."""
    parts = [(attention(), KVCache), (ssm(), lambda: ArraysCache(2)), (varied(MLP(WIDTH, INNER)), lambda: None)]
    for layer, cache in parts:
        assert agree(layer, cache, batch=5)
    assert counted == []
    layer, cache = attention(), KVCache()
    x = drawn(1, 2, WIDTH)
    y = layer(x, cache=cache)[0]
    with reference_implementations():
        assert mx.allclose(layer(x, cache=KVCache())[0], y, atol=1e-5)
    assert counted == []
