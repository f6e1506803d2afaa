"""What layers compute of a few tokens in one operation of `axon-native`, and what they leave to its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import KVCache
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear

from axon_core import few_tokens
from axon_core.attention import Attention
from axon_core.cpu import reference_implementations
from axon_core.experts import ExpertLinear
from axon_core.few_tokens import heads_of_one, mlp_of_few
from axon_core.linear import Linear, QuantizedLinear
from axon_core.mlp import MLP
from axon_core.moe import MoE
from axon_core.specs._rope import RopeOptions

pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]

WIDTH, INNER = 64, 96


def drawn(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape), dtype=mx.float32)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What runs in one operation from here on."""
    found: list[str] = []
    for name in ("native_mlp", "native_heads", "native_experts", "native_routed"):
        call = getattr(few_tokens, name)

        def counting(*arguments: Any, name: str = name, call: Any = call, **options: Any) -> Any:
            y = call(*arguments, **options)
            found.append(name if y is not None else f"no {name}")
            return y

        monkeypatch.setattr(few_tokens, name, counting)
    return found


@pytest.mark.parametrize("bits", [None, 4, 8])
@pytest.mark.parametrize("rope", [None, RopeOptions(fraction=0.5), RopeOptions(traditional=True)])
def test_steps_are_those_of_the_reference(bits: int | None, rope: RopeOptions | None, counted: list[str]) -> None:
    attention, mlp = Attention(WIDTH, 4, num_kv_heads=2, bias=True, rope=rope), MLP(WIDTH, INNER, "gelu_tanh")
    if bits is not None:
        for each in (attention, mlp):
            nn.quantize(each, 32, bits)
    x = drawn(2, 5, WIDTH)

    def steps() -> mx.array:
        cache = KVCache()
        return mx.concatenate([mlp(attention(x[:, i : i + 1], cache=cache)[0]) for i in range(5)], axis=1)

    y = steps()
    assert counted == ["native_heads", "native_mlp"] * 5
    with reference_implementations():
        truth = steps()
    assert len(counted) == 10
    assert mx.abs(y - truth).max() <= 1e-5 * mx.abs(truth).max()


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize(
    "options", [{}, {"bias": True, "latent_dim": 32}, {"score": "sigmoid", "activation": "gelu_tanh"}]
)
def test_steps_of_experts_are_those_of_the_reference(bits: int | None, options: Any, counted: list[str]) -> None:
    moe = MoE(WIDTH, INNER, num_experts=5, top_k=3, shared_intermediate_dim=INNER, **options).eval()
    if bits is not None:
        nn.quantize(moe, 32, bits)
    x = drawn(2, 1, WIDTH)
    y = moe(x)
    assert counted == (["native_experts", "native_mlp"] if options else ["native_routed"])
    with reference_implementations():
        truth = moe(x)
    assert mx.abs(y - truth).max() <= 1e-5 * mx.abs(truth).max()


def test_experts_that_are_left_to_steps(counted: list[str]) -> None:
    """In training, with adapters, and where experts do more than a sum."""
    x, moe = drawn(1, 1, WIDTH), MoE(WIDTH, INNER, num_experts=4)
    moe(x)
    moe = moe.eval()
    moe.switch_mlp.up_proj = LoRASwitchLinear.from_base(moe.switch_mlp.up_proj)
    moe(x)
    for options in ({"limit": 1.0}, {"input_scaled": True}, {"gated": False}, {"activation": "relu"}):
        MoE(WIDTH, INNER, num_experts=4, **options).eval()(x)
    assert counted == []


def test_what_is_left_to_steps(counted: list[str]) -> None:
    """More rows, other types, adapters, packings without a kernel, and layers that do more than these operations."""
    x, mlp = drawn(1, 1, WIDTH), MLP(WIDTH, INNER)
    for other in (drawn(1, 5, WIDTH), x.astype(mx.float64)):
        assert mlp_of_few(mlp, other) is None
    assert counted == []
    assert mlp_of_few(mlp, x.astype(mx.bfloat16)) is None, "its weights are float32, and steps would give that"
    assert counted.pop() == "no native_mlp"
    mlp.up_proj = LoRALinear.from_base(mlp.up_proj)
    assert mlp_of_few(mlp, x) is None
    mlp = MLP(WIDTH, INNER)
    nn.quantize(mlp, 32, 8, mode="mxfp8")
    assert mlp_of_few(mlp, x) is None
    assert counted == ["no native_mlp"]
    for options in ({"gain": True}, {"limit": 1.0}, {"gate_scale": 2.0}, {"sparsity": 0.5}, {"activation": "gelu"}):
        MLP(WIDTH, INNER, **options)(x)
    MLP(WIDTH, INNER, gated=False)(x)
    for options in ({"clip": 1.0}, {"key_scale": 2.0}, {"value_scale": 2.0}, {"head_gain": True}, {"k_eq_v": True}):
        Attention(WIDTH, 4, **options)(x)
    assert counted == ["no native_mlp"]
    attention = Attention(WIDTH, 4, rope=RopeOptions())
    assert heads_of_one(attention, x, mx.array([3])) is None
    assert heads_of_one(attention, drawn(1, 2, WIDTH), 0) is None
    assert heads_of_one(attention, x, 3) is not None


def in_steps(call: Callable[[], mx.array]) -> bool:
    """Whether a call gives what it gives by the reference."""
    y = call()
    with reference_implementations():
        truth = call()
    return y.dtype == truth.dtype and bool(mx.abs(y - truth).max() <= 1e-5 * mx.abs(truth).max())


@pytest.mark.parametrize("change", ["activation", "gate_scale", "limit", "cutoff", "gain"])
def test_an_mlp_that_computes_more_since_it_was_made(change: str) -> None:
    mlp = MLP(WIDTH, INNER)
    mlp[change] = mx.array([3.0])
    if change != "gain":
        mlp.pop(change)
        setattr(mlp, change, "relu" if change == "activation" else 0.01)
    assert in_steps(lambda: mlp(drawn(1, 1, WIDTH)))


@pytest.mark.parametrize("change", ["clip", "key_scale", "value_scale", "head_gain", "q_norm", "rope"])
def test_attention_that_computes_more_since_it_was_made(change: str) -> None:
    attention = Attention(WIDTH, 4, rope=RopeOptions())
    more = {"head_gain": 2 * mx.ones(4), "q_norm": nn.RMSNorm(16), "rope": nn.RoPE(16, base=100.0)}
    setattr(attention, change, more.get(change, 0.01))
    assert in_steps(lambda: steps_of(attention))


def steps_of(attention: Attention) -> mx.array:
    x, cache = drawn(1, 4, WIDTH), KVCache()
    return mx.concatenate([attention(x[:, i : i + 1], cache=cache)[0] for i in range(4)], axis=1)


def doubled(base: type, name: str) -> type:
    """A class one of whose methods gives twice what that of its base gives."""

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        found = getattr(base, name)(self, *arguments, **options)
        return (*(2 * each for each in found[:2]), None) if isinstance(found, tuple) else 2 * found

    return type("Doubled", (base,), {name: method})


@pytest.mark.parametrize("name", ["_projected", "_heads", "_by_head", "_turned", "_queries", "_keys_values", "_kept"])
def test_attention_with_steps_of_its_own(name: str) -> None:
    attention = doubled(Attention, name)(WIDTH, 4, rope=RopeOptions())
    if name in ("_heads", "_by_head"):
        assert heads_of_one(attention, drawn(1, 1, WIDTH), 0) is None
    else:
        assert in_steps(lambda: steps_of(attention))


def test_layers_with_calls_of_their_own() -> None:
    x = drawn(1, 1, WIDTH)
    assert mlp_of_few(doubled(MLP, "_inner")(WIDTH, INNER), x) is None
    for layer in (
        doubled(Linear, "__call__")(WIDTH, INNER),
        doubled(QuantizedLinear, "__call__")(WIDTH, INNER, group_size=32, bits=4),
    ):
        mlp = MLP(WIDTH, INNER)
        mlp.up_proj = layer
        assert in_steps(lambda mlp=mlp: mlp(x))


@pytest.mark.parametrize("weight", [mx.float64, mx.int32, None], ids=str)
@pytest.mark.parametrize("added", [(), (1, INNER), (INNER,)], ids=str)
def test_what_kernels_do_not_read_is_left_to_mlx(weight: mx.Dtype | None, added: tuple[int, ...]) -> None:
    """Other types, and what is added in other shapes."""
    mlp = MLP(WIDTH, INNER)
    if weight is not None:
        mlp.up_proj.weight = (8 * mlp.up_proj.weight).astype(weight)
    mlp.up_proj.bias = drawn(*added, seed=3).astype(weight or mx.float32)
    assert in_steps(lambda: mlp(drawn(1, 1, WIDTH)).astype(mx.float32))


@pytest.mark.parametrize("change", ["limit", "name", "input_scaled", "up_proj"])
def test_experts_that_compute_more_since_they_were_made(change: str) -> None:
    moe = MoE(WIDTH, INNER, num_experts=4).eval()
    if change == "up_proj":
        moe.switch_mlp.up_proj = doubled(ExpertLinear, "__call__")(WIDTH, INNER, 4, bias=False).eval()
    else:
        place = moe if change == "input_scaled" else moe.switch_mlp.activation
        setattr(place, change, {"limit": 0.01, "name": "relu", "input_scaled": True}[change])
    assert in_steps(lambda: moe(drawn(1, 1, WIDTH)))


def test_tokens_go_into_caches_in_place_while_the_step_before_runs() -> None:
    """`slice_update` would copy keys and values that attention of that step still reads."""
    attention = Attention(WIDTH, 4)
    cache = KVCache()
    x = drawn(1, 1, WIDTH)
    mx.eval(attention.parameters(), attention(drawn(1, 4096, WIDTH), cache=cache)[0])
    mx.eval(attention(x, cache=cache)[0])  # which makes room
    mx.reset_peak_memory()
    before, steps = mx.get_active_memory(), []
    for _ in range(20):
        steps.append(attention(x, cache=cache)[0])
        mx.async_eval(steps[-1])
    mx.eval(steps)
    assert mx.get_peak_memory() - before < cache.keys.nbytes / 2
    held = cache.keys  # where somebody else has them they are not changed
    kept = np.array(held)
    mx.eval(attention(x, cache=cache)[0])
    assert np.array_equal(np.array(held), kept)
    assert not np.array_equal(np.array(cache.keys), kept)
